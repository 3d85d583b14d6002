"""Which tasks a node takes, and what it predicts of the wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.messages import Task
from roadside.models.admission import AdmissionQueue, Job


def task(task_id: str = "t-1", *, attempt: int = 1, remaining_ms: float = 1000.0) -> Task:
    return Task(
        task_id=task_id,
        attempt=attempt,
        kind="explain",
        prompt="what is the car doing and why ?",
        frames=(b"\xff\xd8\xff\xd9",),
        telemetry={},
        deadline_ms=2000.0,
        remaining_ms=remaining_ms,
        qos_floor=0.6,
        place="edge",
    )


def queue(*, limit: int = 4, parallel: int = 1, service_ms: float = 100.0) -> AdmissionQueue:
    made = AdmissionQueue(limit=limit, parallel=parallel)
    made.service.observe("edge", "explain", service_ms)
    return made


def test_takes_a_task_and_remembers_it():
    jobs = queue()
    admitted = jobs.admit("vehicle-1", task(), now_s=10.0)
    assert isinstance(admitted, Job)
    assert jobs.known("vehicle-1", task()) is admitted
    assert jobs.known("vehicle-2", task()) is None, "another vehicle's task of the same id is another task"
    assert jobs.known("vehicle-1", task(attempt=2)) is None


def test_refuses_when_full():
    jobs = queue(limit=2)
    assert isinstance(jobs.admit("v", task("a", remaining_ms=9e4), 0.0), Job)
    assert isinstance(jobs.admit("v", task("b", remaining_ms=9e4), 0.0), Job)
    assert jobs.admit("v", task("c", remaining_ms=9e4), 0.0) == "full"


def test_refuses_what_cannot_make_its_deadline():
    jobs = queue(service_ms=100.0)
    assert jobs.admit("v", task("late", remaining_ms=99.0), 0.0) == "deadline"
    jobs.admit("v", task("a"), 0.0)
    assert jobs.admit("v", task("b", remaining_ms=150.0), 0.0) == "deadline", "100 ms of queue, 100 ms of service"
    assert isinstance(jobs.admit("v", task("c", remaining_ms=250.0), 0.0), Job)


def test_slots_work_side_by_side():
    jobs = AdmissionQueue(limit=8, parallel=2, slots=2)
    jobs.service.observe("edge", "explain", 100.0)
    waits_ms = []
    for number in range(5):
        waits_ms.append(jobs.wait_ms(0.0))
        jobs.admit("v", task(str(number), remaining_ms=9e4), 0.0)
    assert waits_ms == [0.0, 0.0, 100.0, 100.0, 200.0]
    jobs.start_next(0.0)
    jobs.start_next(0.0)
    assert jobs.wait_ms(0.04) == pytest.approx(160.0), "40 ms later the first two are 40 ms nearer to their end"
    assert jobs.load(0.04).slots == 2


def test_refuses_when_closed():
    jobs = queue()
    jobs.closed = True
    assert jobs.admit("v", task(), 0.0) == "stopping"


def test_the_wait_shrinks_while_the_running_task_runs():
    jobs = queue(service_ms=100.0)
    jobs.admit("v", task("a"), 0.0)
    jobs.admit("v", task("b"), 0.0)
    jobs.start_next(now_s=0.0)
    assert jobs.wait_ms(0.0) == pytest.approx(200)
    assert jobs.wait_ms(0.06) == pytest.approx(140)
    assert jobs.wait_ms(5.0) == pytest.approx(100), "a running task that takes longer is due at any moment"


def test_a_kind_never_seen_is_taken_for_the_slowest():
    jobs = queue(service_ms=100.0)
    jobs.service.observe("edge", "describe", 300.0)
    assert jobs.service.expected_ms("edge", "something-new") == 300.0


@given(parallel=st.integers(1, 3), steps=st.lists(st.sampled_from(["admit", "start", "finish", "drop"]), max_size=200))
def test_every_admitted_task_is_started_once_in_order(parallel, steps):
    jobs, admitted, started = queue(limit=5, parallel=parallel), [], []
    for number, step in enumerate(steps):
        if step == "admit":
            if isinstance(jobs.admit("v", task(f"t{number}", remaining_ms=9e5), 0.0), Job):
                admitted.append(f"t{number}")
        elif step == "start":
            had_room = len(jobs.running) < parallel and len(jobs) > 0
            job = jobs.start_next(0.0)
            assert (job is not None) == had_room
            if job is not None:
                started.append(job.task.task_id)
        elif jobs.running:
            jobs.finish(jobs.running[number % len(jobs.running)], "edge", 50.0 if step == "finish" else None)
        assert len(jobs) <= 5
        assert len(jobs.running) <= parallel
        load = jobs.load(0.0)
        assert (load.queued, load.running) == (len(jobs), len(jobs.running))
        assert load.wait_ms >= 0
    assert started == admitted[: len(started)]
    assert len(admitted) == len(started) + len(jobs)
