"""The context manager: who may keep what, how much of it, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import ContextChunk, Lease, LeaseRefused, LeaseRequest
from roadside.bus.tensors import TensorPayload, pack
from roadside.cloud_node.context import Context, Refused
from roadside.cloud_node.contexts import ContextManager
from roadside.cloud_node.parts import run_together
from roadside.cloud_node.settings import ContextSettings

FITTING = LeaseRequest(model_hash="abc", first_exit_layer=2, hidden_size=32)
SEQUENCE = list(range(10, 26))


@pytest.fixture
def manage(cut: Any) -> Callable[..., ContextManager]:
    def make(**settings: Any) -> ContextManager:
        return ContextManager(
            parts=cut.parts, model_hash="abc", settings=ContextSettings(**settings), counters=Counter()
        )

    return make


def lease(manager: ContextManager, edge: str) -> str:
    granted = manager.lease(edge, FITTING)
    assert isinstance(granted, Lease)
    return granted.lease


def chunk(cut: Any, session: str, position: int = 0, end: int = len(SEQUENCE), **other: Any) -> ContextChunk:
    hidden = cut.hidden(SEQUENCE)[position:end]
    fields = {"rollback": 0, "position": position, "hidden": pack(hidden, "float16"), **other}
    return ContextChunk(session=session, **fields)


def compute(cut: Any, manager: ContextManager, context: Context, up_to: int) -> int:
    assert manager.admit("edge", context, [up_to]) is None
    batch = context.begin([up_to])
    (chosen,) = run_together([batch], cut.parts).by_batch
    assert chosen is not None
    context.finish(batch, chosen)
    return chosen[0].token


@pytest.mark.parametrize(
    ("reason", "request_"),
    [
        ("model", LeaseRequest(model_hash="abd", first_exit_layer=2, hidden_size=32)),
        ("split", LeaseRequest(model_hash="abc", first_exit_layer=3, hidden_size=32)),
        ("hidden-size", LeaseRequest(model_hash="abc", first_exit_layer=2, hidden_size=64)),
    ],
)
def test_an_edge_of_another_model_gets_no_lease(manage: Any, reason: str, request_: LeaseRequest) -> None:
    assert manage().lease("edge-1", request_) == LeaseRefused(reason=reason)


def test_a_session_is_its_edges_alone(cut: Any, manage: Any) -> None:
    manager = manage()
    first, second = lease(manager, "edge-1"), lease(manager, "edge-2")
    assert manager.take("edge-1", chunk(cut, f"{first}.1"), 0.0) == "new"
    own = manager.find("edge-1", f"{first}.1", 0.0)
    assert manager.find("edge-2", f"{first}.1", 0.0) is None
    manager.close("edge-2", f"{first}.1")
    with pytest.raises(MessageRefused) as refused:
        manager.take("edge-2", chunk(cut, f"{first}.1"), 0.0)
    assert refused.value.reason == "session"
    assert manager.find("edge-2", f"{second}.1", 0.0) is not own
    assert manager.find("edge-1", f"{first}.1", 0.0) is own
    assert compute(cut, manager, own, 16) == cut.next_token(SEQUENCE)


@pytest.mark.parametrize("number", ["", "x", "01", "-1", "1.0", "٣"])
def test_a_session_has_one_name(manage: Any, number: str) -> None:
    manager = manage()
    assert manager.find("edge-1", f"{lease(manager, 'edge-1')}.{number}", 0.0) is None


def test_a_new_lease_voids_the_old_one_and_zeroes_its_contexts(cut: Any, manage: Any) -> None:
    manager = manage()
    old = lease(manager, "edge-1")
    manager.take("edge-1", chunk(cut, f"{old}.1"), 0.0)
    rows = list(manager.find("edge-1", f"{old}.1", 0.0)._rows.values())
    new = lease(manager, "edge-1")
    assert not any(row.any() for row in rows)
    assert (len(manager), manager.memory_bytes) == (0, 0)
    assert manager.find("edge-1", f"{old}.1", 0.0) is None
    assert manager.find("edge-1", f"{new}.1", 0.0) is not None


def test_a_closed_session_is_not_begun_again_by_what_comes_late(cut: Any, manage: Any) -> None:
    manager = manage()
    name = f"{lease(manager, 'edge-1')}.7"
    manager.take("edge-1", chunk(cut, name, end=3), 0.0)
    manager.close("edge-1", name)
    with pytest.raises(MessageRefused):
        manager.take("edge-1", chunk(cut, name, position=3), 0.0)
    assert len(manager) == 0


def test_old_numbers_are_forgotten_but_not_reused(manage: Any) -> None:
    manager = manage()
    granted = lease(manager, "edge-1")
    for number in range(5000):
        assert manager.find("edge-1", f"{granted}.{number}", 0.0) is not None
        manager.close("edge-1", f"{granted}.{number}")
    assert len(manager._leases["edge-1"].ended) <= 3 * 1024
    for number in (0, 3000, 4999):
        assert manager.find("edge-1", f"{granted}.{number}", 0.0) is None


def test_silent_sessions_are_zeroed_after_their_time(cut: Any, manage: Any) -> None:
    manager = manage(session_ttl_s=5.0)
    granted = lease(manager, "edge-1")
    manager.take("edge-1", chunk(cut, f"{granted}.1"), 0.0)
    manager.take("edge-1", chunk(cut, f"{granted}.2", end=4), 0.0)
    silent = manager.find("edge-1", f"{granted}.1", 0.0)
    compute(cut, manager, silent, 16)
    cache = [layer.keys for layer in silent._rest.cache_layers]
    manager.take("edge-1", chunk(cut, f"{granted}.2", position=4), 3.0)
    manager.expire(6.0)
    assert not any(keys.any() for keys in cache)
    assert manager.find("edge-1", f"{granted}.1", 6.0) is None
    assert manager.find("edge-1", f"{granted}.2", 6.0) is not None


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        ("shape", pack(np.ones((2, 31)), "float16")),
        ("shape", pack(np.ones(32), "float16")),
        ("shape", TensorPayload("float16", (2, 32), memoryview(b"\0" * 64))),
        ("dtype", pack(np.ones((2, 32), np.int8), "int8")),
        ("not-finite", TensorPayload("float16", (1, 32), memoryview(b"\0\x7e" * 32))),
    ],
)
def test_hidden_states_that_do_not_fit_reach_no_model(cut: Any, manage: Any, reason: str, payload: Any) -> None:
    manager = manage()
    name = f"{lease(manager, 'edge-1')}.1"
    manager.take("edge-1", chunk(cut, name, end=9), 0.0)
    with pytest.raises(MessageRefused) as refused:
        manager.take("edge-1", chunk(cut, name, position=9, hidden=payload), 0.0)
    assert refused.value.reason == reason
    manager.take("edge-1", chunk(cut, name, position=9), 0.0)
    assert compute(cut, manager, manager.find("edge-1", name, 0.0), 16) == cut.next_token(SEQUENCE)


@pytest.mark.parametrize("position", [25, 2**31, 2**53])
def test_a_session_that_would_be_too_long_is_given_up(cut: Any, manage: Any, position: int) -> None:
    manager = manage(max_positions=40)
    name = f"{lease(manager, 'edge-1')}.1"
    assert manager.take("edge-1", chunk(cut, name), 0.0) == "new"
    rest = chunk(cut, name)
    absurd = ContextChunk(session=name, rollback=0, position=position, hidden=rest.hidden)
    assert manager.take("edge-1", absurd, 0.0) == Refused("too-large")
    assert manager.memory_bytes == 0
    with pytest.raises(MessageRefused):
        manager.take("edge-1", chunk(cut, name), 0.0)


def test_a_contradiction_is_given_up_and_other_sessions_are_not(cut: Any, manage: Any) -> None:
    manager = manage()
    granted = lease(manager, "edge-1")
    for number in (1, 2):
        manager.take("edge-1", chunk(cut, f"{granted}.{number}"), 0.0)
    other = pack(np.ones((16, 32)), "float16")
    assert manager.take("edge-1", chunk(cut, f"{granted}.1", hidden=other), 0.0) == Refused("conflict")
    assert compute(cut, manager, manager.find("edge-1", f"{granted}.2", 0.0), 16) == cut.next_token(SEQUENCE)


def test_a_batch_counts_before_it_is_run(cut: Any, manage: Any) -> None:
    manager = manage(session_bytes=12_000)  # 16 positions wait in 3.8 kB, and are 6.1 kB as keys and values
    name = f"{lease(manager, 'edge-1')}.1"
    assert manager.take("edge-1", chunk(cut, name), 0.0) == "new"
    context = manager.find("edge-1", name, 0.0)
    assert compute(cut, manager, context, 16) == cut.next_token(SEQUENCE)
    assert manager.take("edge-1", chunk(cut, name, position=15, hidden=rows(20), rollback=1, kept=15), 0.0) == "new"
    assert manager.admit("edge-1", context, [35]) == Refused("too-large")
    assert context.refused == "too-large"
    assert manager.memory_bytes == 0


def rows(count: int) -> Any:
    return pack(np.ones((count, 32)), "float16")


def test_beyond_the_budget_the_least_recently_used_goes_first(cut: Any, manage: Any) -> None:
    """Of edges that hold alike."""
    manager = manage(budget_bytes=4 * 3_900)
    edges = ["a", "b", "c", "d", "e"]
    names = {edge: f"{lease(manager, edge)}.1" for edge in edges}
    for now_s, edge in enumerate(edges[:4]):
        assert manager.take(edge, chunk(cut, names[edge]), float(now_s)) == "new"
    assert len(manager) == 4
    manager.find("a", names["a"], 10.0)  # heard of again, so that it is not the oldest any more
    assert manager.take("e", chunk(cut, names["e"]), 11.0) == "new"
    assert manager.memory_bytes <= 4 * 3_900
    assert [edge for edge in edges if manager.find(edge, names[edge], 12.0) is not None] == ["a", "c", "d", "e"]


def test_what_does_not_fit_beside_batches_under_way_is_refused(cut: Any, manage: Any) -> None:
    manager = manage(budget_bytes=13_000)
    busy, late = f"{lease(manager, 'busy')}.1", f"{lease(manager, 'late')}.1"
    manager.take("busy", chunk(cut, busy), 0.0)
    context = manager.find("busy", busy, 0.0)
    assert manager.admit("busy", context, [16]) is None
    batch = context.begin([16])
    assert manager.memory_bytes > 9_000, "with what the cache will have grown by"
    assert manager.take("late", chunk(cut, late), 1.0) == Refused("no-room")
    (chosen,) = run_together([batch], cut.parts).by_batch
    assert chosen is not None
    context.finish(batch, chosen)
    assert chosen[0].token == cut.next_token(SEQUENCE)
    assert manager.memory_bytes <= 13_000


def test_a_budget_of_nothing_helps_nobody(manage: Any) -> None:
    assert manage(budget_bytes=0).lease("edge-1", FITTING) == LeaseRefused(reason="no-room")


def test_an_edge_that_opens_many_sessions_pushes_out_its_own(cut: Any, manage: Any) -> None:
    manager = manage(budget_bytes=40_000)
    modest, greedy = lease(manager, "modest"), lease(manager, "greedy")
    manager.take("modest", chunk(cut, f"{modest}.1"), 0.0)
    for number in range(1, 30):
        manager.take("greedy", chunk(cut, f"{greedy}.{number}"), float(number))
        assert manager.memory_bytes <= 40_000
    assert manager.find("modest", f"{modest}.1", 30.0) is not None
    assert manager.find("greedy", f"{greedy}.1", 30.0) is None
    newest = manager.find("greedy", f"{greedy}.29", 30.0)
    assert compute(cut, manager, newest, 16) == cut.next_token(SEQUENCE)


def test_a_session_that_is_being_computed_is_not_evicted(cut: Any, manage: Any) -> None:
    manager = manage(sessions_per_edge=2)
    granted = lease(manager, "edge-1")
    first = manager.find("edge-1", f"{granted}.1", 0.0)
    manager.take("edge-1", chunk(cut, f"{granted}.1"), 0.0)
    batch = first.begin([16])
    for number in (2, 3, 4):
        assert manager.find("edge-1", f"{granted}.{number}", float(number)) is not None
    assert len(manager) == 2
    (chosen,) = run_together([batch], cut.parts).by_batch
    assert chosen is not None
    first.finish(batch, chosen)
    assert manager.find("edge-1", f"{granted}.1", 9.0) is first
    assert chosen[0].token == cut.next_token(SEQUENCE)


def test_leases_are_bounded(manage: Any) -> None:
    manager = manage(edges=3)
    leases = {edge: lease(manager, edge) for edge in ("a", "b", "c")}
    assert manager.find("a", f"{leases['a']}.1", 0.0) is not None
    lease(manager, "d")
    assert manager.find("b", f"{leases['b']}.1", 0.0) is None
    assert manager.find("a", f"{leases['a']}.1", 0.0) is not None
