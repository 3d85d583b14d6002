"""Records what a real vehicle knew at one of its decisions, for test_live_parity.py.

    .venv/bin/python -P tests/policy/environment/record_live_state.py

drives one vehicle against one edge and one cloud for some seconds, and writes the decision at which the nodes were
busiest to live_state.json beside this file.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from roadside.bus.broker import Broker
from roadside.fleet import Fleet
from roadside.policy.candidates import Candidates, NodeView, build_candidates
from roadside.policy.features import FEATURE_SCHEMA, TaskFacts
from roadside.policy.utility import UtilityModel
from roadside.qos.run import RunDirectory
from roadside.vehicle_node import node, placement
from roadside.vehicle_node.configuration import VehicleConfiguration

RECORDED = Path(__file__).with_name("live_state.json")
_FLEET = "record"


class LiveState(msgspec.Struct):
    """A decision's input, and the features that came of it, a row for each place."""

    feature_schema: str
    silent_after_ms: float
    task: TaskFacts
    views: list[NodeView]
    features: list[list[float]]


async def record() -> LiveState:
    decisions: list[tuple[LiveState, Candidates]] = []

    def recording(task: TaskFacts, views: list[NodeView], utility: UtilityModel, **options: Any) -> Candidates:
        table = build_candidates(task, views, utility, **options)
        features = [list(map(float, row)) for row in table.features]
        decisions.append((LiveState(FEATURE_SCHEMA, options["silent_after_ms"], task, list(views), features), table))
        return table

    placement.build_candidates = recording
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", configuration={}, seed=0, argv=[])
        async with Broker(directory=run.path / "broker") as broker, Fleet(run, broker.url) as fleet:
            for name, role in (("edge-1", "edge"), ("cloud-1", "cloud")):
                await fleet.start(name, role, "--name", name, "--fleet", _FLEET)
            await fleet.ready(["edge-1", "cloud-1"], timeout_s=120)
            configuration = VehicleConfiguration(
                broker=broker.url,
                fleet=_FLEET,
                journal=str(run.path / "vehicle-1.sqlite"),
                policy="random",
                rate_hz=8.0,
                duration_s=8.0,
            )
            await node.run(configuration, asyncio.Event())
            await fleet.stop(["edge-1", "cloud-1"])
    whole = [(state, table) for state, table in decisions if len(table) == 4 and not any(map(_is_dead, table.masked))]
    return max(whole, key=lambda each: (sum(view.unreported > 0 for view in each[0].views), each[1].wait_ms.sum()))[0]


def _is_dead(masked: str) -> bool:
    return masked in ("dead", "silent")


if __name__ == "__main__":
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(asyncio.run(record())), indent=1) + b"\n")
