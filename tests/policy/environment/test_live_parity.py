"""One recorded moment of a real fleet, as the dispatcher sees it and as the simulator does (record_live_state.py)."""

import math
from array import array
from pathlib import Path

import msgspec
import numpy as np
import pytest
from roadside.bus.link import PACKET_BYTES, CapacityTrace
from roadside.policy.candidates import NodeView, build_candidates, candidates_of
from roadside.policy.environment.constants import Kind, Quality, load_constants
from roadside.policy.environment.dynamics import Dynamics
from roadside.policy.environment.layout import lay_out
from roadside.policy.environment.observation import Observer
from roadside.policy.environment.traces import Traces
from roadside.policy.environment.uplinks import RecordedUplinks
from roadside.policy.features import FEATURE_SCHEMA, FEATURES, TaskFacts
from roadside.policy.guard import Guard
from roadside.policy.registry import PolicyOptions, make_policy
from roadside.policy.utility import UtilityModel

UTILITY = UtilityModel()
NOW_S = 100.0


class LiveState(msgspec.Struct):
    feature_schema: str
    silent_after_ms: float
    task: TaskFacts
    views: list[NodeView]
    features: list[list[float]]


@pytest.fixture(scope="module")
def live() -> LiveState:
    recorded = msgspec.json.decode(Path(__file__).with_name("live_state.json").read_bytes(), type=LiveState)
    assert recorded.feature_schema == FEATURE_SCHEMA, "the features have changed: run record_live_state.py again"
    return recorded


def test_the_moment_is_worth_comparing(live):
    """Queues, reports of different ages and own tasks on the way: else agreeing would show little."""
    table = build_candidates(live.task, live.views, UTILITY, silent_after_ms=live.silent_after_ms)
    assert table.places == ("vehicle", "edge", "edge+cloud", "cloud")
    assert (table.wait_ms[1:] > 100).all()
    assert len({view.age_ms for view in live.views}) == 3
    assert [view.unreported for view in live.views] == [0, 1, 2]


def test_the_dispatcher_makes_the_same_features_as_then(live):
    table = build_candidates(live.task, live.views, UTILITY, silent_after_ms=live.silent_after_ms)
    assert table.features == pytest.approx(np.array(live.features), rel=1e-6)


def test_what_ships_may_decide_there_by_itself(live):
    """It was trained on fleets that are like this one, so the guard has nothing to say."""
    table = build_candidates(live.task, live.views, UTILITY, silent_after_ms=live.silent_after_ms)
    guard = Guard(make_policy("ddpg", PolicyOptions()), decision_budget_ms=math.inf)
    decision = guard.decide(live.task, table, NOW_S)
    assert "guard" not in decision.reason
    assert not guard.counters
    assert table.places[decision.chosen] != "vehicle"


def test_the_simulator_makes_the_dispatchers_features(live):
    task, (_, edge, cloud) = live.task, live.views
    service_ms = {
        place: by_kind[task.kind]
        for view in (edge, cloud)
        for place, by_kind in view.state.load.service_ms.items()  # pyright: ignore[reportOptionalMemberAccess]
    }
    quality = {place: by_kind[task.kind] for view in (edge, cloud) for place, by_kind in view.state.quality.items()}
    upload_ms = UTILITY.nominal_upload_ms(task.upload_bytes)
    committed = load_constants(scenario="collaborative")

    def tier(node, view: NodeView):
        return msgspec.structs.replace(
            node,
            slots=view.state.load.slots,  # pyright: ignore[reportOptionalMemberAccess]
            power_w=view.state.slot_power_w,
            round_trip_ms=view.network_ms - upload_ms,
        )

    constants = msgspec.structs.replace(
        committed,
        arrivals=msgspec.structs.replace(committed.arrivals, vehicles=1),
        kinds=(
            Kind(
                name=task.kind,
                share=1.0,
                upload_bytes=(0.0, 0.0),
                tokens=(0.0, 0.0),
                deadline_s=(0.0, 0.0),
                quality=Quality(0.0, quality["edge"], quality["cloud"], quality["edge+cloud"]),
                service_ms={"vehicle": 0.0, **service_ms},
            ),
        ),
        vehicle=msgspec.structs.replace(committed.vehicle, power_w=0.0),
        edge=tier(committed.edge, edge),
        cloud=tier(committed.cloud, cloud),
    )
    layout = lay_out(constants, 1)
    # Several tasks of the kind: those on their way, and the one that was decided on.
    arrival_s = np.array([0.0, 0.0, 0.0, NOW_S])
    rows = np.ones((len(arrival_s), len(layout)))
    rates = np.full_like(rows, UTILITY.nominal_uplink_bps)
    rates[:, 0] = np.inf
    traces = Traces(
        arrival_s=arrival_s,
        vehicle=np.zeros(len(arrival_s), np.intp),
        kind=np.zeros(len(arrival_s), np.intp),
        upload_bytes=np.full(len(arrival_s), float(task.upload_bytes)),
        tokens=np.full(len(arrival_s), task.tokens),
        deadline_s=np.full(len(arrival_s), task.deadline_ms / 1000),
        announced_bps=rates,
        actual_bps=rates,
        reachable=rows > 0,
        slowness=np.ones(len(arrival_s)),
        node_speed=np.ones(len(layout)),
        report_error=None,
    )
    packets_per_s = UTILITY.nominal_uplink_bps / 8 / PACKET_BYTES
    radio = CapacityTrace(array("d", np.arange(1, 60 * packets_per_s + 1) / packets_per_s))
    uplinks = RecordedUplinks(constants, layout, traces, radio, seed=0)
    dynamics = Dynamics(constants, layout, traces, uplinks)
    state = dynamics.fresh_state()
    observer = Observer(layout, traces, dynamics, uplinks, vehicles=1, heartbeat_s=1e9, in_flight="vehicle")
    observer.observe(state, 0)
    for number, view in enumerate((edge, cloud), start=1):
        load = view.state.load
        assert load is not None
        observer.hear(number, NOW_S - view.age_ms / 1000, load.wait_ms, load.queued + load.running)
        for _ in range(view.unreported):
            observer.sent(0, layout.places.index("edge" if number == 1 else "cloud"), NOW_S + 1)
    table = candidates_of(
        task,
        observer.observe(state, 3),
        UTILITY,
        nodes=layout.nodes,
        places=layout.places,
        masked=("",) * len(layout),
    )
    assert table.places == ("vehicle", "edge", "edge+cloud", "cloud")
    for name, simulated, dispatched in zip(FEATURES, table.features.T, np.array(live.features).T, strict=True):
        # The radio sends whole packets, so that its rate is the nominal one to within one of them a second.
        assert simulated == pytest.approx(dispatched, rel=2e-3, abs=1e-4), name
    live_table = build_candidates(task, live.views, UTILITY, silent_after_ms=live.silent_after_ms)
    assert table.in_flight.tolist() == live_table.in_flight.tolist()
    assert table.slots.tolist() == live_table.slots.tolist()
