"""Which tasks a node takes, and what it predicts of the wait."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.messages import Task
from roadside.models.admission import Admission, AdmissionQueue, Job, Refusal


def task(task_id: str = "t-1", *, attempt: int = 1, remaining_ms: float = 1000.0, kind: str = "explain") -> Task:
    return Task(
        task_id=task_id,
        attempt=attempt,
        kind=kind,
        prompt="what is the car doing and why ?",
        frames=(b"\xff\xd8\xff\xd9",),
        telemetry={},
        deadline_ms=2000.0,
        remaining_ms=remaining_ms,
        qos_floor=0.6,
        place="edge",
    )


def queue(*, limit: int = 4, parallel: int = 1, slots: int = 1, service_ms: float = 100.0) -> AdmissionQueue:
    """Of a node that is sure of how long its answers take."""
    made = AdmissionQueue(limit=limit, parallel=parallel, slots=slots)
    for _ in range(100):
        made.service.observe("edge", "explain", service_ms)
    return made


def admit(jobs: AdmissionQueue, name: str, *, vehicle: str = "v", remaining_ms: float = 9e4, now_s: float = 0.0) -> Job:
    admitted = jobs.admit(vehicle, task(name, remaining_ms=remaining_ms), now_s)
    assert isinstance(admitted, Admission), f"{name} was refused: {admitted}"
    assert not admitted.displaced
    return admitted.job


def refused(jobs: AdmissionQueue, name: str, *, vehicle: str = "v", remaining_ms: float = 9e4) -> Refusal:
    refusal = jobs.admit(vehicle, task(name, remaining_ms=remaining_ms), 0.0)
    assert isinstance(refusal, Refusal)
    return refusal


def test_takes_a_task_and_remembers_it():
    jobs = queue()
    admitted = admit(jobs, "t-1", vehicle="vehicle-1")
    assert jobs.known("vehicle-1", task()) is admitted
    assert jobs.known("vehicle-2", task()) is None, "another vehicle's task of the same id is another task"
    assert jobs.known("vehicle-1", task(attempt=2)) is None


def test_what_is_over_is_remembered_without_its_pictures():
    jobs = queue()
    job = admit(jobs, "t-1")
    jobs.start_next(0.0)
    jobs.finish(job, 100.0)
    known = jobs.known("v", task())
    assert known is not None
    assert known is job
    assert known.task.frames == ()


def test_an_attempt_is_remembered_until_its_time_is_over():
    jobs = queue()
    for number in range(50):
        job = admit(jobs, f"t-{number}", remaining_ms=500.0, now_s=0.2 * number)
        jobs.start_next(0.2 * number)
        jobs.finish(job, 100.0)
    assert jobs.known("v", task("t-49")) is not None
    assert jobs.known("v", task("t-47")) is not None
    assert jobs.known("v", task("t-40")) is None
    assert len(jobs._known) == 3


def test_a_task_whose_time_was_over_when_it_came_is_refused_or_tried_like_any_other():
    for remaining_ms in (-5.0, 0.0):
        jobs = queue()
        jobs.admit("v", task("a", remaining_ms=remaining_ms), 0.0)
        assert isinstance(jobs.admit("v", task("b", remaining_ms=remaining_ms), 1.0), Refusal)


def test_refuses_when_full_and_says_when_a_place_will_be_free():
    jobs = queue(limit=2)
    admit(jobs, "running")
    jobs.start_next(0.0)
    admit(jobs, "a")
    admit(jobs, "b")
    refusal = refused(jobs, "c")
    assert refusal.reason == "full"
    assert refusal.retry_after_ms == pytest.approx(100.0, abs=1)


def test_a_full_queue_makes_room_for_a_vehicle_with_a_shorter_line():
    jobs = queue(limit=3)
    flood = [admit(jobs, f"flood-{number}", vehicle="flood") for number in range(3)]
    admitted = jobs.admit("quiet", task("q", remaining_ms=9e4), 0.0)
    assert isinstance(admitted, Admission)
    ((pushed_out, refusal),) = admitted.displaced
    assert pushed_out is flood[-1]
    assert refusal.reason == "full"
    assert jobs.known("flood", pushed_out.task) is None, "sent again it is another try"
    assert refused(jobs, "again", vehicle="flood").reason == "full"
    assert len(jobs) == 3


def test_refuses_what_cannot_make_its_deadline():
    jobs = queue()
    admit(jobs, "a", remaining_ms=101.0)
    refusal = refused(jobs, "b", remaining_ms=199.0)
    assert refusal.reason == "deadline"
    assert refusal.retry_after_ms == pytest.approx(199.0), "no later try of it would be in time"
    admit(jobs, "c", remaining_ms=201.0)


def test_a_doubtful_estimate_asks_for_more_time_than_a_sure_one():
    doubtful = AdmissionQueue(limit=4)
    doubtful.service.observe("edge", "explain", 100.0)
    admit(doubtful, "a", remaining_ms=180.0)
    assert refused(doubtful, "b", remaining_ms=205.0).reason == "deadline"


def test_an_idle_node_takes_what_has_an_even_chance():
    idle = AdmissionQueue(limit=4)
    idle.service.observe("edge", "explain", 100.0)
    admit(idle, "a", remaining_ms=101.0)
    assert isinstance(idle.admit("v", task("b", remaining_ms=205.0), 0.0), Refusal), "it is not idle any more"


def test_an_idle_node_tries_what_its_experience_speaks_against_now_and_then():
    jobs = queue(service_ms=5000.0)
    trial = admit(jobs, "try", remaining_ms=700.0)
    assert jobs.start_next(0.0) is trial
    assert jobs.give_up(trial, 0.0) is None
    jobs.finish(trial, 700.0)
    assert isinstance(jobs.admit("v", task("a", remaining_ms=700.0), 2.0), Refusal)
    assert isinstance(jobs.admit("v", task("b", remaining_ms=700.0), 4.0), Admission)
    assert isinstance(jobs.admit("v", task("c", remaining_ms=700.0), 30.0), Refusal), "it is not idle"


def test_what_has_become_hopeless_is_refused_as_soon_as_that_is_known():
    jobs = queue(limit=8)
    admit(jobs, "running", vehicle="a")
    jobs.start_next(0.0)
    late = [admit(jobs, f"a-{n}", vehicle="a", remaining_ms=410.0) for n in range(3)][-1]
    admitted = jobs.admit("b", task("b", remaining_ms=410.0), 0.0)
    assert isinstance(admitted, Admission)
    assert [(job, refusal.reason) for job, refusal in admitted.displaced] == [(late, "deadline")]


def test_a_job_whose_time_is_nearly_over_is_given_up():
    jobs = queue()
    job = admit(jobs, "a", remaining_ms=150.0)
    assert jobs.give_up(job, 0.049) is None
    refusal = jobs.give_up(job, 0.051)
    assert refusal is not None
    assert refusal.reason == "deadline"


def test_slots_work_side_by_side():
    jobs = queue(limit=8, parallel=2, slots=2)
    waits_ms = []
    for number in range(5):
        waits_ms.append(jobs.wait_ms(0.0, vehicle="v"))
        admit(jobs, str(number))
    assert waits_ms == pytest.approx([0.0, 0.0, 100.0, 100.0, 200.0])
    jobs.start_next(0.0)
    jobs.start_next(0.0)
    assert jobs.wait_ms(0.04, vehicle="v") == pytest.approx(160.0), (
        "40 ms later the first two are 40 ms nearer to their end"
    )
    assert jobs.load(0.04).slots == 2


def test_a_task_begins_beside_another_only_while_that_one_waits_for_another_tier():
    jobs = queue(parallel=4)
    first, second, third = (admit(jobs, name) for name in "abc")
    assert jobs.start_next(0.0) is first
    assert jobs.start_next(0.0) is None, "its slot is taken, though four may be under way"
    jobs.wait_for_others(first, 0.01)
    assert jobs.start_next(0.01) is second
    jobs.go_on(first, 0.03)
    jobs.wait_for_others(second, 0.04)
    assert jobs.start_next(0.04) is None, "the first has gone on meanwhile"
    jobs.finish(first, first.slot_ms(0.05))
    assert jobs.start_next(0.05) is third


def test_what_waits_for_another_tier_keeps_nobody_waiting():
    jobs = queue(parallel=4)
    job = admit(jobs, "a")
    jobs.start_next(0.0)
    jobs.wait_for_others(job, 0.01)
    jobs.go_on(job, 0.07)
    assert job.slot_ms(0.09) == pytest.approx(30.0)
    jobs.answered(job, "edge", 0.09)
    jobs.finish(job, job.slot_ms(0.09))
    assert jobs.service.means_ms()["edge"]["explain"] == pytest.approx(98.0), "vehicles are told of the whole"
    admit(jobs, "b")
    jobs.start_next(0.0)
    assert jobs.wait_ms(0.0, vehicle="v") == pytest.approx(30.0), "its slot is wanted for a part of it"
    assert refused(jobs, "late", remaining_ms=125.0).reason == "deadline"
    admit(jobs, "in time", remaining_ms=150.0)


def test_a_hazard_overtakes_what_has_been_taken_and_not_begun():
    jobs = queue(parallel=4, limit=8)
    flood = [admit(jobs, f"flood-{number}", vehicle="flood") for number in range(4)]
    jobs.start_next(0.0)
    hazard = admit(jobs, "hazard", vehicle="quiet", remaining_ms=350.0)
    jobs.finish(flood[0], 100.0)
    assert jobs.start_next(0.1) in (flood[1], hazard)
    jobs.finish(jobs.running[0], 100.0)
    jobs.start_next(0.2)
    assert hazard.started_s > 0, "one of each line at a time"


def test_refuses_when_closed():
    jobs = queue()
    jobs.closed = True
    assert jobs.admit("v", task(), 0.0) == Refusal("stopping", 0.0)


def test_the_wait_shrinks_while_the_running_task_runs():
    jobs = queue()
    admit(jobs, "a")
    admit(jobs, "b")
    jobs.start_next(now_s=0.0)
    assert jobs.wait_ms(0.0, vehicle="v") == pytest.approx(200)
    assert jobs.wait_ms(0.06, vehicle="v") == pytest.approx(140)
    assert jobs.wait_ms(5.0, vehicle="v") == pytest.approx(100), "a running task that takes longer is due at any moment"


def test_a_vehicle_is_told_the_wait_behind_its_own_line_and_everybody_that_of_a_newcomer():
    jobs = queue(limit=16)
    for number in range(8):
        admit(jobs, str(number), vehicle="flood")
    jobs.start_next(0.0)
    assert jobs.load(0.0, vehicle="flood").wait_ms == pytest.approx(800)
    assert jobs.load(0.0, vehicle="quiet").wait_ms == pytest.approx(100), "behind what is under way"
    assert jobs.load(0.0).wait_ms == jobs.load(0.0, vehicle="quiet").wait_ms


def test_behind_many_vehicles_with_one_task_each_everybody_waits_for_all_of_them():
    jobs = queue(limit=16)
    for number in range(8):
        admit(jobs, str(number), vehicle=f"vehicle-{number}")
    jobs.start_next(0.0)
    assert jobs.load(0.0).wait_ms == pytest.approx(800)


def test_a_node_that_was_measured_in_a_bad_minute_serves_again_soon():
    jobs = AdmissionQueue(limit=4)
    jobs.service.observe("edge", "explain", 6000.0)
    refused_at_s = []
    for second in range(60):
        admitted = jobs.admit("v", task(str(second), remaining_ms=2000.0), float(second))
        if isinstance(admitted, Refusal):
            refused_at_s.append(second)
        else:
            jobs.start_next(second)
            jobs.service.observe("edge", "explain", 50.0)
            jobs.finish(admitted.job, 50.0)
    assert max(refused_at_s) < 10


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "start", "finish", "drop", "wait", "away", "back"]),
        st.sampled_from(["v", "w", "x"]),
        st.floats(10.0, 3000.0),
    ),
    max_size=120,
)


@settings(max_examples=80, deadline=None)
@given(parallel=st.integers(1, 3), slots=st.integers(1, 3), steps=STEPS)
def test_every_admitted_task_is_started_or_displaced_once_and_a_free_slot_never_idles(parallel, slots, steps):
    jobs = queue(limit=5, parallel=parallel, slots=slots)
    waiting: set[Job] = set()
    now_s = 0.0
    for number, (step, vehicle, milliseconds) in enumerate(steps):
        if step == "admit":
            admitted = jobs.admit(vehicle, task(f"t{number}", remaining_ms=milliseconds), now_s)
            if isinstance(admitted, Admission):
                waiting.add(admitted.job)
                waiting -= {job for job, _ in admitted.displaced}
        elif step == "start":
            in_slots = [job for job in jobs.running if job.away_since_s is None]
            had_room = len(jobs.running) < parallel and len(in_slots) < slots and len(jobs) > 0
            job = jobs.start_next(now_s)
            assert (job is not None) == had_room, "work is conserved"
            waiting -= {job}
        elif step == "wait":
            now_s += milliseconds / 1000
        elif jobs.running:
            job = jobs.running[number % len(jobs.running)]
            if step == "away" and job.away_since_s is None:
                jobs.wait_for_others(job, now_s)
            elif step == "back":
                jobs.go_on(job, now_s)
            elif step in ("finish", "drop"):
                jobs.finish(job, milliseconds if step == "finish" else 0.0)
            assert 0 <= job.slot_ms(now_s) <= (now_s - job.started_s) * 1000 + 1e-6
        assert len(jobs) == len(waiting) <= 5, "the queue is bounded"
        assert len(jobs.running) <= parallel
        load = jobs.load(now_s)
        assert (load.queued, load.running) == (len(jobs), len(jobs.running))
        assert jobs.wait_ms(now_s, vehicle="v") >= load.wait_ms >= 0, "a line of one's own is never of use"


ARRIVALS = st.lists(
    st.tuples(st.sampled_from(["v", "w", "flood", "flood"]), st.floats(0.0, 120.0)), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(slots=st.integers(1, 2), arrivals=ARRIVALS, deadline_ms=st.floats(120.0, 900.0))
def test_what_is_refused_would_have_missed_and_what_is_begun_does_not(slots, arrivals, deadline_ms):
    """Every answer takes as long as predicted, and all tasks have the same time. What is refused is put into a copy of
    the queue all the same, and everything there is served to the end."""
    node = Node(queue(limit=1000, parallel=slots, slots=slots))
    for number, (vehicle, gap_ms) in enumerate(arrivals):
        node.run(until_s=node.now_s + gap_ms / 1000)
        admitted = node.jobs.admit(vehicle, task(f"t{number}", remaining_ms=deadline_ms), node.now_s)
        if isinstance(admitted, Refusal):
            assert admitted.reason == "deadline"
            other = copy.deepcopy(node)
            forced = Job(vehicle, task("forced", remaining_ms=deadline_ms), 10_000, node.now_s)
            other.jobs._waiting.add(forced)
            other.run(until_s=1e3)
            done_s = other.done_s.get(forced)
            assert done_s is None or done_s > forced.deadline_s - 1e-6
    node.run(until_s=1e3)
    assert all(done_s <= job.deadline_s + 1e-6 for job, done_s in node.done_s.items())
    assert not node.hopeless, "none was found to be so when its turn came"


class Node:
    """Serves a queue whose answers take 100 ms each. hopeless: never begun. done_s: when the others were done."""

    def __init__(self, jobs: AdmissionQueue) -> None:
        self.jobs = jobs
        self.now_s = 0.0
        self.ends_s: dict[Job, float] = {}
        self.done_s: dict[Job, float] = {}
        self.hopeless: list[Job] = []

    def run(self, *, until_s: float) -> None:
        self._begin()
        while self.ends_s and min(self.ends_s.values()) <= until_s:
            job = min(self.ends_s, key=lambda each: self.ends_s[each])
            self.now_s = self.done_s[job] = self.ends_s.pop(job)
            self.jobs.finish(job, 100.0)
            self._begin()
        self.now_s = until_s

    def _begin(self) -> None:
        while (job := self.jobs.start_next(self.now_s)) is not None:
            if self.jobs.give_up(job, self.now_s - 1e-9):
                self.hopeless.append(job)
                self.jobs.finish(job, 0.0)
            else:
                self.ends_s[job] = self.now_s + 0.1
