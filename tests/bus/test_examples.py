from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.messages import Load, Result, Timing
from roadside.bus.transport import Bus

pytestmark = pytest.mark.timeout(60)

SUBSCRIBER = Path(__file__).resolve().parents[2] / "examples" / "subscribe.py"


@dataclass
class Answer:
    final: bool
    text: str

    def as_result(self) -> Result:
        return Result(
            task_id="t-1",
            attempt=1,
            final=self.final,
            text=self.text,
            place="edge",
            mode="standalone",
            model="m",
            made_by=("exit1", "full"),
            confidence=0.9,
            timing=Timing(),
            energy_j=1.5,
            energy_method="modelled",
            load=Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={"edge": {"hazard": 12.5}}),
        )


async def test_a_subscriber_without_roadside_prints_the_final_answers(broker: Broker, fleet: str):
    subscriber = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(SUBSCRIBER), broker.url), stdout=subprocess.PIPE
    )
    assert subscriber.stdout is not None
    try:
        async with Bus(url=broker.url, fleet=fleet, name="edge-1") as edge:
            line = b""
            while not line:
                # Repeated until it listens; a result is not retained.
                await edge.publish(topics.RESULT, Answer(False, "provisional").as_result(), vehicle="car-1")
                await edge.publish(topics.RESULT, Answer(True, "the car brakes — für rot").as_result(), vehicle="car-1")
                try:
                    line = await asyncio.wait_for(subscriber.stdout.readline(), 0.2)
                except TimeoutError:
                    continue
    finally:
        subscriber.kill()
        await subscriber.wait()
    assert line.decode() == "car-1 <- edge-1 (edge): the car brakes — für rot\n"


def test_the_example_imports_nothing_of_roadside():
    imported = [
        line.split()[1] for line in SUBSCRIBER.read_text().splitlines() if line.startswith(("import ", "from "))
    ]
    assert {name.split(".")[0] for name in imported} == {"sys", "urllib", "msgpack", "paho"}
