"""Messages as they may come, for tests that care about one thing in them: `msgspec.structs.replace(OUTCOME, ...)`."""

from __future__ import annotations

from roadside.bus.messages import Load, Outcome, Result, Task, Timing

IDLE = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})

TASK = Task(
    task_id="t-1",
    attempt=1,
    kind="hazard",
    prompt="what must the driver react to ?",
    frames=(b"\xff\xd8\xff\xd9",),
    telemetry={"Vehicle.Speed": 48.5},
    deadline_ms=700.0,
    remaining_ms=650.0,
    qos_floor=0.5,
    place="edge",
)

RESULT = Result(
    task_id="t-1",
    attempt=1,
    final=True,
    text="the car stops .",
    place="edge",
    mode="standalone",
    model="m",
    made_by=("exit1",),
    confidence=0.9,
    timing=Timing(),
    energy_j=1.0,
    energy_method="modelled",
    load=IDLE,
)

OUTCOME = Outcome(
    task_id="t-1",
    kind="explain",
    state="result",
    reason="",
    text="the car stops .",
    created_at_s=1_700_000_000.0,
    deadline_ms=2000.0,
    requested="edge",
    place="edge",
    node="edge-1",
    mode="standalone",
    accepted=True,
    attempts=1,
    latency_ms=84.0,
    first_answer_ms=84.0,
    network_ms=12.0,
    timing=Timing(),
    energy_j=1.0,
    energy_method="modelled",
    clip="clip-1",
    moment_s=3.0,
    decision=None,
)
