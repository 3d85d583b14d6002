from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from roadside.bus import topics
from roadside.bus.errors import BusError, OutboxFull
from roadside.bus.outbox import Outbox, Outgoing


def result(number: int, *, perishable: bool = False) -> Outgoing:
    return Outgoing(topics.RESULT, "result", b"%d" % number, [], perishable)


def state(number: int, address: str = "a") -> Outgoing:
    return Outgoing(topics.NODE_STATE, address, b"%d" % number, [])


LIMIT = 6


class OutboxMachine(RuleBasedStateMachine):
    """Against a model: what the broker must have in the end, whatever happens to the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(limit=LIMIT)
        self.number = 0
        self.must_arrive: list[bytes] = []
        self.perishable: set[bytes] = set()
        self.newest: dict[str, bytes] = {}
        self.taken: list[Outgoing] = []
        self.arrived: list[bytes] = []
        self.arrived_states: dict[str, bytes] = {}

    @rule(perishable=st.booleans())
    def put_result(self, perishable: bool) -> None:
        self.number += 1
        full = len(self.outbox) >= LIMIT
        try:
            self.outbox.put(result(self.number, perishable=perishable))
        except OutboxFull:
            assert full
        else:
            assert not full
            self.must_arrive.append(b"%d" % self.number)
            if perishable:
                self.perishable.add(b"%d" % self.number)

    @rule(address=st.sampled_from("ab"))
    def put_state(self, address: str) -> None:
        self.number += 1
        self.outbox.put(state(self.number, address))
        self.newest[address] = b"%d" % self.number

    @rule()
    def take(self) -> None:
        message = self.outbox.take()
        if message is not None:
            self.taken.append(message)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        message = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.broker_gets(message)

    @rule()
    def connection_lost(self) -> None:
        forgotten = {message.payload for message in self.outbox.connection_lost()}
        assert forgotten == self.perishable.difference(self.arrived)
        self.must_arrive = [payload for payload in self.must_arrive if payload not in forgotten]
        self.perishable.clear()
        self.taken.clear()
        self.arrived_states.clear()

    def broker_gets(self, message: Outgoing) -> None:
        self.outbox.acknowledge(message)
        if message.topic.retained:
            self.arrived_states[message.address] = message.payload
        else:
            self.arrived.append(message.payload)

    @invariant()
    def counts_agree(self) -> None:
        assert self.outbox.on_their_way == len(self.taken)
        assert len(self.outbox) >= len(self.must_arrive) - len(self.arrived)

    def teardown(self) -> None:
        self.connection_lost()
        left = []
        while (message := self.outbox.take()) is not None:
            left.append(message)
        for message in left:
            self.broker_gets(message)
        assert sorted(self.arrived) == sorted(self.must_arrive)
        assert self.arrived_states == self.newest
        assert len(self.outbox) == 0
        # Acknowledgements came in any order, but what was never acknowledged goes out in the order it was put.
        again = [message.payload for message in left if not message.topic.retained]
        assert again == [payload for payload in self.must_arrive if payload in again]


OutboxMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_outbox_against_a_model = OutboxMachine.TestCase


def test_states_never_fill_the_outbox_and_only_the_newest_is_sent():
    outbox = Outbox(limit=2)
    for number in range(10):
        outbox.put(state(number))
    message = outbox.take()
    assert message is not None
    assert message.payload == b"9"
    assert outbox.take() is None


async def test_who_waits_for_a_replaced_state_is_told_when_the_newer_one_arrives():
    outbox = Outbox(limit=2)
    old, new = state(1), state(2)
    waiter = asyncio.get_running_loop().create_future()
    old.waiters.append(waiter)
    outbox.put(old)
    outbox.put(new)
    assert outbox.take() is new
    outbox.acknowledge(new)
    assert waiter.done()


async def test_until_empty_waits_for_the_acknowledgement():
    outbox = Outbox(limit=2)
    await outbox.until_empty()
    outbox.put(result(1))
    waiting = asyncio.create_task(outbox.until_empty())
    message = outbox.take()
    assert message is not None
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.acknowledge(message)
    await waiting


async def test_abandon_tells_everybody_who_waits():
    outbox = Outbox(limit=4)
    messages = [result(1), result(2), state(3)]
    for message in messages:
        message.waiters.append(asyncio.get_running_loop().create_future())
        outbox.put(message)
    outbox.take()
    outbox.abandon(BusError("closed"))
    for message in messages:
        with pytest.raises(BusError, match="closed"):
            await message.waiters[0]
