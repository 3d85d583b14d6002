"""The bus against live brokers, both kinds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import msgspec
import pytest
from roadside.bus import codec, topics
from roadside.bus.broker import Broker, BrokerKind
from roadside.bus.connection import BrokerAddress, explain
from roadside.bus.errors import BrokerError, BusError, ConfigurationError, MessageRefused, OutboxFull
from roadside.bus.messages import SCHEMA_VERSION, Accepted, Envelope, NodeState, Result, Task
from roadside.bus.subscription import Received
from roadside.bus.transport import Bus

from .. import plain_messages

# Nothing here waits by the clock; this only ends a test that would hang.
PATIENCE_S = 15.0
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


def state(node: str, alive: bool = True, uptime_s: float = 0.0) -> NodeState:
    return NodeState(node=node, role="edge", alive=alive, uptime_s=uptime_s)


def task(task_id: str, frame: bytes = b"\xff\xd8\xff\xd9") -> Task:
    return msgspec.structs.replace(plain_messages.TASK, task_id=task_id, frames=(frame,))


def result(task_id: str) -> Result:
    return msgspec.structs.replace(plain_messages.RESULT, task_id=task_id, text="the car brakes")


@pytest.fixture
def connect(broker: Broker, fleet: str) -> Callable[..., Bus]:
    """Makes a bus on the live broker, in a fleet of this test's own."""

    def make(name: str, **options: object) -> Bus:
        return Bus(**{"url": broker.url, "fleet": fleet, "name": name, **options})

    return make


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop time until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of every kind, few of which have an event
            await asyncio.sleep(0.01)


async def speak_raw(broker: Broker, address: str, payload: bytes, retain: bool = False) -> None:
    """Publish whatever bytes on whatever address, as a broken or hostile client would."""
    there = BrokerAddress.parse(broker.url)
    async with aiomqtt.Client(there.host, there.port, username=there.username, password=there.password) as client:
        await client.publish(address, payload, qos=1, retain=retain)


async def test_a_task_goes_out_and_its_result_comes_back(connect):
    async with connect("car-1") as car, connect("edge-1") as edge:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        results = car.subscribe(topics.RESULT, vehicle="car-1")
        await tasks.active.wait()
        await results.active.wait()
        frame = os.urandom(150_000)
        await car.publish(topics.TASK, task("t-1", frame), node="edge-1")
        received = await anext(tasks)
        assert received.topic is topics.TASK
        assert received.names == {"fleet": car.fleet, "node": "edge-1", "vehicle": "car-1"}
        assert received.body == task("t-1", frame)
        assert received.envelope.sender == "car-1"
        assert received.envelope.boot_id == car.boot_id
        await edge.publish(topics.RESULT, result("t-1"), vehicle="car-1")
        assert (await anext(results)).body == result("t-1")
        assert car.counters["published"] == 1
        assert car.counters["received"] == 1


async def test_a_subscription_made_before_the_connection_misses_nothing(connect):
    edge = connect("edge-1")
    tasks = edge.subscribe(topics.TASK, node="edge-1")
    async with edge, connect("car-1") as car:
        assert tasks.active.is_set()
        await car.publish(topics.TASK, task("t-1"), node="edge-1")
        assert (await anext(tasks)).body.task_id == "t-1"


async def test_posted_and_published_messages_keep_their_order(connect):
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK)
        await tasks.active.wait()
        for number in range(0, 100, 2):
            car.post(topics.TASK, task(f"t-{number}"), node="edge-1")
            await car.publish(topics.TASK, task(f"t-{number + 1}"), node="edge-1")
        received = [await anext(tasks) for _ in range(100)]
        assert [each.body.task_id for each in received] == [f"t-{number}" for number in range(100)]
        assert [each.envelope.sequence for each in received] == list(range(1, 101))


async def test_each_subscription_gets_only_what_it_asked_for(connect):
    async with connect("edge-1") as edge, connect("car-1") as car:
        mine = edge.subscribe(topics.TASK, node="edge-1", vehicle="car-2")
        states = edge.subscribe(topics.VEHICLE_STATE)
        other = edge.subscribe(topics.TASK, node="edge-1", vehicle="car-1")
        for subscription in (mine, states, other):
            await subscription.active.wait()
        await car.publish(topics.TASK, task("t-1"), node="edge-1")
        await car.publish(topics.VEHICLE_STATE, NodeState(node="car-1", role="vehicle", alive=True))
        assert (await anext(states)).body.node == "car-1"
        assert (await anext(other)).body.task_id == "t-1"
        assert len(mine) == len(states) == len(other) == 0


async def test_a_retained_state_reaches_who_comes_later(connect):
    async with connect("edge-1") as edge:
        for uptime_s in (1.0, 2.0, 3.0):
            await edge.publish(topics.NODE_STATE, state("edge-1", uptime_s=uptime_s))
        async with connect("car-1") as car:
            states = car.subscribe(topics.NODE_STATE)
            assert (await anext(states)).body.uptime_s == 3.0


async def test_who_subscribed_to_nothing_gets_nothing(connect):
    async with connect("edge-1") as edge, connect("car-1") as car:
        states = car.subscribe(topics.NODE_STATE)
        await edge.publish(topics.NODE_STATE, state("edge-1"))
        await anext(states)
        async with connect("edge-2") as silent:
            acks = silent.subscribe(topics.ACK, vehicle="edge-2")
            await acks.active.wait()
            await edge.publish(topics.ACK, Accepted("t-1", 1, plain_messages.IDLE), vehicle="edge-2")
            await anext(acks)
            assert silent.counters["unwanted"] == 0


CLIENT_THAT_NEVER_SAYS_GOODBYE = """
import asyncio, sys
from roadside.bus import topics
from roadside.bus.messages import NodeState
from roadside.bus.transport import Bus

def state(alive):
    return NodeState(node="edge-9", role="edge", alive=alive)

async def main():
    async with Bus(url=sys.argv[1], fleet=sys.argv[2], name="edge-9", will=(topics.NODE_STATE, state(False))) as bus:
        await bus.subscribe(topics.TASK, node="edge-9").active.wait()
        await bus.publish(topics.NODE_STATE, state(True))
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_last_will_of_a_killed_process(connect, broker: Broker, fleet: str):
    async with connect("car-1") as car:
        states = car.subscribe(topics.NODE_STATE)
        await states.active.wait()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", CLIENT_THAT_NEVER_SAYS_GOODBYE, broker.url, fleet)
        )
        try:
            assert (await anext(states)).body.alive
        finally:
            process.kill()
            await process.wait()
        will = await anext(states)
        assert not will.body.alive
        assert will.envelope.sequence == 0


async def test_a_bus_that_is_closed_leaves_no_last_will(connect):
    async with connect("car-1") as car:
        states = car.subscribe(topics.NODE_STATE)
        await states.active.wait()
        async with connect("edge-1", will=(topics.NODE_STATE, state("edge-1", alive=False))) as edge:
            await edge.publish(topics.NODE_STATE, state("edge-1"))
        async with connect("edge-2") as edge:
            await edge.publish(topics.NODE_STATE, state("edge-2"))
        assert [(await anext(states)).body.node for _ in range(2)] == ["edge-1", "edge-2"]


async def test_closing_sends_what_still_waits(connect):
    async with connect("car-1") as car:
        results = car.subscribe(topics.RESULT, vehicle="car-1")
        await results.active.wait()
        async with connect("edge-1") as edge:
            for number in range(200):
                edge.post(topics.RESULT, result(f"t-{number}"), vehicle="car-1")
        received = [(await anext(results)).body.task_id for _ in range(200)]
        assert received == [f"t-{number}" for number in range(200)]


async def test_closing_ends_the_iterations_after_what_waits(connect):
    async with connect("car-1") as car:
        acks = car.subscribe(topics.ACK, vehicle="car-1")
        await acks.active.wait()
        async with connect("edge-1") as edge:
            await edge.publish(topics.ACK, Accepted("t-1", 1, plain_messages.IDLE), vehicle="car-1")
        await until(lambda: len(acks))
    assert [received.body.task_id async for received in acks] == ["t-1"]
    with pytest.raises(BusError, match="closed"):
        car.post(topics.VEHICLE_STATE, NodeState(node="car-1", role="vehicle", alive=False))


async def test_bad_messages_are_counted_by_reason_and_the_good_ones_go_on(connect, broker: Broker):
    async with connect("car-1") as car:
        results = car.subscribe(topics.RESULT, vehicle="car-1")
        await results.active.wait()
        address = topics.RESULT.address(car.fleet, vehicle="car-1", node="edge-1")

        def written(sender: str, version: int = SCHEMA_VERSION) -> bytes:
            return codec.encode(Envelope(version, sender, "boot", 1, 0.0, result("t-1")))

        await speak_raw(broker, address, b"\x91" * 5000)
        await speak_raw(broker, address, written("edge-2"))
        await speak_raw(broker, address, written("edge-1", version=99))
        await speak_raw(broker, address, written("edge-1") + b"\x00")
        await speak_raw(broker, address.replace("edge-1", "edge 1"), written("edge-1"))
        await speak_raw(broker, address, b"")
        await speak_raw(broker, address, written("edge-1"))
        assert (await anext(results)).body == result("t-1")
        assert car.counters["refused.schema"] == 3
        assert car.counters["refused.sender"] == 1
        assert car.counters["refused.address"] == 1
        assert car.counters["refused.version"] == 1
        assert car.counters["received"] == 1


async def test_a_full_queue_of_states_forgets_the_oldest(connect):
    async with connect("car-1") as car, connect("edge-1") as edge:
        states = car.subscribe(topics.NODE_STATE, limit=3)
        await states.active.wait()
        for number in range(10):
            await edge.publish(topics.NODE_STATE, state("edge-1", uptime_s=float(number)))
        await until(lambda: car.counters["received"] == 10)
        assert [(await anext(states)).body.uptime_s for _ in range(3)] == [7.0, 8.0, 9.0]
        assert car.counters["dropped.node-state"] == 7


async def test_a_full_inbox_hands_each_task_that_finds_no_room_to_its_owner(connect):
    refused: list[Received] = []
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK, limit=3, on_overflow=refused.append, node="edge-1")
        await tasks.active.wait()
        for number in range(10):
            await car.publish(topics.TASK, task(f"t-{number}"), node="edge-1")
        await until(lambda: len(refused) == 7)
        assert [(await anext(tasks)).body.task_id for _ in range(3)] == ["t-0", "t-1", "t-2"]
        assert [each.body.task_id for each in refused] == [f"t-{number}" for number in range(3, 10)]
        assert edge.counters["overflow.task"] == 7


async def test_an_error_in_an_overflow_handler_does_not_cost_the_connection(connect):
    def broken(received: Received) -> None:
        raise ZeroDivisionError

    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK, limit=1, on_overflow=broken, node="edge-1")
        await tasks.active.wait()
        for number in range(3):
            await car.publish(topics.TASK, task(f"t-{number}"), node="edge-1")
        await until(lambda: len(seen) == 2)
        assert all(isinstance(error, ZeroDivisionError) for error in seen)
        assert edge.counters["reconnects"] == 0


async def test_what_does_not_belong_on_a_topic_is_a_programming_error(connect):
    async with connect("car-1") as car:
        with pytest.raises(TypeError, match="carries Task, not NodeState"):
            car.post(topics.TASK, state("car-1"), node="edge-1")
        with pytest.raises(TypeError, match="needs node"):
            await car.publish(topics.TASK, task("t-1"))
        with pytest.raises(ValueError, match="cannot send as car-2"):
            await car.publish(topics.TASK, task("t-1"), node="edge-1", vehicle="car-2")
        with pytest.raises(MessageRefused, match="size"):
            await car.publish(topics.TASK, task("t-1", bytes(codec.MAX_MESSAGE_BYTES)), node="edge-1")


async def test_the_largest_message_passes_the_broker(connect):
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        largest = task("t-1", bytes(4 * 1024 * 1024))
        await car.publish(topics.TASK, largest, node="edge-1")
        assert (await anext(tasks)).body == largest


async def test_nagle_is_off(connect):
    async with connect("car-1") as car:
        assert socket_of(car).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# Losses


@pytest.fixture
async def own_broker(broker_kind: BrokerKind) -> AsyncIterator[Broker]:
    """A broker that the test may kill."""
    async with Broker(prefer=broker_kind) as own:
        yield own


def socket_of(bus: Bus) -> socket.socket:
    """The socket itself, which no public interface of the MQTT client gives away."""
    assert bus._client is not None
    raw = bus._client._client.socket()
    assert isinstance(raw, socket.socket)
    return raw


def drop_connection(bus: Bus) -> None:
    socket_of(bus).shutdown(socket.SHUT_RDWR)


async def kill(broker: Broker) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    await broker.stop()


async def test_a_killed_broker_comes_back_and_everything_goes_on(own_broker: Broker):
    car = Bus(url=own_broker.url, fleet="f", name="car-1")
    edge = Bus(url=own_broker.url, fleet="f", name="edge-1")
    tasks = edge.subscribe(topics.TASK, node="edge-1")
    states = car.subscribe(topics.NODE_STATE)
    async with car, edge:
        await edge.publish(topics.NODE_STATE, state("edge-1", uptime_s=1.0))
        assert (await anext(states)).body.uptime_s == 1.0
        await kill(own_broker)
        await until(lambda: not car.connected.is_set() and not edge.connected.is_set())
        published = asyncio.create_task(car.publish(topics.TASK, task("t-0"), node="edge-1"))
        for number in range(1, 50):
            car.post(topics.TASK, task(f"t-{number}"), node="edge-1")
        await asyncio.sleep(0)
        assert not published.done()
        await own_broker.start()
        # The receiver may come back later than the sender, and a broker keeps nothing for a session that it has
        # forgotten: then the application sends again, as a vehicle does until it has the node's word.
        await edge.connected.wait()
        await published
        await car.publish(topics.TASK, task("t-50"), node="edge-1")
        async with asyncio.timeout(PATIENCE_S):
            while (await anext(tasks)).body.task_id != "t-50":
                pass
        # The restarted broker had forgotten the state; nobody but the bus has sent it again.
        assert (await anext(states)).body.uptime_s == 1.0
        assert car.counters["published"] == 51
        assert car.counters["reconnects"] == edge.counters["reconnects"] == 1


async def test_what_was_on_its_way_and_what_waited_arrive_in_order(connect):
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        tasks_before = len(asyncio.all_tasks())
        drop_connection(car)
        # Nobody has noticed yet, so the first of these are handed to the dead connection.
        assert car.connected.is_set()
        for number in range(100):
            car.post(topics.TASK, task(f"t-{number}"), node="edge-1")
        received = [(await anext(tasks)).body.task_id for _ in range(100)]
        assert received == [f"t-{number}" for number in range(100)]
        assert car.counters["reconnects"] == 1
        # What was on its way over the dead connection waits for no acknowledgement any more.
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)


async def test_a_short_absence_of_the_receiver_loses_nothing(connect):
    """The broker keeps QoS 1 messages for a session that it knows: the connection drops, the process lives on."""
    async with connect("edge-1") as edge, connect("car-1") as car:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        drop_connection(edge)
        for number in range(50):
            await car.publish(topics.TASK, task(f"t-{number}"), node="edge-1")
        received = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(received) < 50:
                received.add((await anext(tasks)).body.task_id)
        await until(lambda: edge.counters["reconnects"] == 1)


async def test_a_broker_that_falls_silent_is_left_and_found_again(own_broker: Broker):
    """No packet and no end of the connection: only the keepalive can tell."""
    async with (
        Bus(url=own_broker.url, fleet="f", name="car-1", keepalive_s=1, timeout_s=0.5) as car,
        Bus(url=own_broker.url, fleet="f", name="edge-1", keepalive_s=1, timeout_s=0.5) as edge,
    ):
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        os.kill(own_broker.pid, signal.SIGSTOP)
        try:
            published = asyncio.create_task(car.publish(topics.TASK, task("t-1"), node="edge-1"))
            await until(lambda: not car.connected.is_set() and not edge.connected.is_set())
            assert not published.done()
        finally:
            os.kill(own_broker.pid, signal.SIGCONT)
        await published
        assert (await anext(tasks)).body.task_id == "t-1"


class Gate:
    """Stands before a broker and forwards to it, except where told to treat the next connections otherwise."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.next_ones: list[str] = []
        self.hung_up = 0
        self.kept: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.kept.append(writer)
        match self.next_ones.pop(0) if self.next_ones else "forward":
            case "accept and drop":
                writer.write(b"\x20\x02\x00\x00")
                writer.close()
            case "say nothing":
                await reader.read(1000)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                self.hung_up += 1
            case _:
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.broker.port)
                self.kept.append(there_writer)
                await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("trouble", ["accept and drop", "say nothing"])
async def test_an_attempt_that_fails_halfway_is_followed_by_another(connect, broker: Broker, trouble: str):
    gate = Gate(broker)
    server = await asyncio.start_server(gate, "127.0.0.1", 0)
    there = BrokerAddress.parse(broker.url)
    credentials = f"{there.username}:{there.password}@" if there.username else ""
    url = f"mqtt://{credentials}127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with connect("edge-1") as edge:
        tasks = edge.subscribe(topics.TASK, node="edge-1")
        await tasks.active.wait()
        # No subscription of its own: nothing but the connection itself can tell that it is gone.
        async with connect("car-1", url=url, timeout_s=0.3, keepalive_s=600) as car:
            gate.next_ones = [trouble] * 2
            drop_connection(car)
            await until(lambda: not gate.next_ones)
            car.post(topics.TASK, task("t-1"), node="edge-1")
            assert (await anext(tasks)).body.task_id == "t-1"
            # A broker that wakes up late must not find an old attempt still open, which would take over the new.
            await until(lambda: gate.hung_up == (2 if trouble == "say nothing" else 0))
    server.close()


async def test_closing_at_the_moment_of_a_reconnection_ends(connect, monkeypatch):
    """The cancellation meets the attempt between the broker's answer and the next step of the supervisor."""
    stopping: list[asyncio.Task[None]] = []
    accepted = aiomqtt.Client._on_connect

    def accepted_while_closing(client: aiomqtt.Client, *arguments: Any) -> None:
        accepted(client, *arguments)
        stopping.append(asyncio.create_task(car._stop()))

    async with connect("car-1") as car:
        monkeypatch.setattr(aiomqtt.Client, "_on_connect", accepted_while_closing)
        drop_connection(car)
        await until(lambda: stopping)
        async with asyncio.timeout(PATIENCE_S):
            await stopping[0]
        assert not car.connected.is_set()


async def test_a_full_outbox_says_so_and_states_still_fit(own_broker: Broker):
    async with Bus(url=own_broker.url, fleet="f", name="car-1", outbox_limit=10, close_timeout_s=0.1) as car:
        await kill(own_broker)
        await until(lambda: not car.connected.is_set())
        for number in range(10):
            car.post(topics.TASK, task(f"t-{number}"), node="edge-1")
        with pytest.raises(OutboxFull, match="10 messages wait"):
            car.post(topics.TASK, task("t-10"), node="edge-1")
        car.post(topics.VEHICLE_STATE, NodeState(node="car-1", role="vehicle", alive=True))
        waiting = asyncio.create_task(car.publish(topics.VEHICLE_STATE, NodeState("car-1", "vehicle", True)))
        await asyncio.sleep(0)
    with pytest.raises(BusError, match="closed before"):
        await waiting


# First connections


async def first_error(url: str) -> str:
    with pytest.raises(BrokerError) as raised:
        async with Bus(url=url, fleet="f", name="car-1", timeout_s=1.0):
            pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def test_nothing_listens_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await first_error(f"mqtt://127.0.0.1:{port}")
    assert f"nothing listens at mqtt://127.0.0.1:{port}" in error
    assert f"roadside broker --port {port}" in error


async def test_no_such_host():
    error = await first_error("mqtt://nowhere.invalid:1883")
    assert "no host is called 'nowhere.invalid'" in error


async def test_something_else_listens_there():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        error = await first_error(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "does not answer as an MQTT broker" in error


async def test_bad_credentials():
    async with Broker(prefer="amqtt") as broker:
        error = await first_error(f"mqtt://roadside:hunter2@127.0.0.1:{broker.port}")
        assert "refuses the user name or password" in error
        assert "hunter2" not in error
        anonymous = await first_error(f"mqtt://127.0.0.1:{broker.port}")
        assert "refuses the user name or password" in anonymous


@pytest.mark.parametrize("code", [4, 5])
def test_a_refusal_by_its_number_is_explained_too(code: int):
    error = explain(aiomqtt.MqttCodeError(code), BrokerAddress.parse("mqtt://broker:1"))
    assert "user name or password" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "127.0.0.1:1883",
        "http://host:1883",
        "mqtt://",
        "mqtt://host:x",
        "mqtt://host:99999",
        "mqtt://host/path",
    ],
)
def test_an_unusable_url(url: str):
    with pytest.raises(ConfigurationError, match="write it as mqtt://"):
        Bus(url=url, fleet="f", name="car-1")


def test_a_url_is_taken_apart_and_its_password_kept_out_of_sight():
    address = BrokerAddress.parse("mqtt://car%401:p%2Fw@broker.example:8883")
    assert (address.host, address.port, address.username, address.password) == ("broker.example", 8883, "car@1", "p/w")
    assert "p/w" not in f"{address} {address!r}"
    assert str(BrokerAddress.parse("mqtt://[::1]")) == "mqtt://[::1]:1883"


async def test_a_cancelled_first_connection_leaves_no_task_behind():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        before = asyncio.all_tasks()
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), Bus(url=url, fleet="f", name="car-1"):
                pass
        await until(lambda: not [task for task in asyncio.all_tasks() - before if "bus" in task.get_name()])


def test_the_bus_starts_without_torch():
    program = "import sys, roadside.bus.transport, roadside.bus.broker; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-P", "-c", program], check=False)
    assert done.returncode == 0


async def test_a_broker_keeps_no_states_for_a_process_that_never_comes_back(best_broker, fleet):
    """It kept the sessions of killed processes, with every state that anybody told since."""
    bus = Bus(url=best_broker.url, fleet=fleet, name="killed-1")
    await bus.__aenter__()
    states, acks = bus.subscribe(topics.NODE_STATE), bus.subscribe(topics.ACK, vehicle="killed-1")
    await asyncio.gather(states.active.wait(), acks.active.wait())
    assert bus._supervisor is not None
    bus._supervisor.cancel()  # it goes without a word to its broker about what it had subscribed to
    await asyncio.wait([bus._supervisor])
    async with Bus(url=best_broker.url, fleet=fleet, name="edge-1") as edge:
        for number in range(20):
            await edge.publish(topics.NODE_STATE, state("edge-1", uptime_s=number))
        await edge.publish(topics.ACK, Accepted("t", 1, plain_messages.IDLE), vehicle="killed-1")
    assert await kept(best_broker, f"{fleet}.killed-1.{bus.boot_id}") == ["ack"]


async def test_what_is_kept_for_a_killed_process_is_dropped_when_its_next_life_begins(best_broker, fleet):
    will = (topics.NODE_STATE, state("edge-9", alive=False))
    async with Bus(url=best_broker.url, fleet=fleet, name="car-1") as car:
        states = car.subscribe(topics.NODE_STATE)
        await states.active.wait()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", CLIENT_THAT_NEVER_SAYS_GOODBYE, best_broker.url, fleet)
        )
        earlier = f"{fleet}.edge-9.{(await anext(states)).envelope.boot_id}"
        process.kill()
        await process.wait()
        assert not (await anext(states)).body.alive
        await car.publish(topics.TASK, plain_messages.TASK, node="edge-9")
        async with Bus(url=best_broker.url, fleet=fleet, name="edge-9", will=will) as edge:
            await edge.publish(topics.NODE_STATE, state("edge-9"))
            assert await kept(best_broker, earlier) == []


async def test_what_is_kept_for_a_process_that_lives_is_left_alone(best_broker, fleet):
    """Also from another one of its name, which is somebody's mistake."""
    will = (topics.NODE_STATE, state("edge-9", alive=False))
    async with Bus(url=best_broker.url, fleet=fleet, name="edge-9", will=will) as edge:
        await edge.publish(topics.NODE_STATE, state("edge-9"))
        async with Bus(url=best_broker.url, fleet=fleet, name="edge-9", will=will):
            assert edge.counters["reconnects"] == 0
            assert edge.connected.is_set()


async def kept(broker: Broker, identifier: str) -> list[str]:
    """The last parts of the addresses of what a broker has for a client; the asking takes it away."""
    address = BrokerAddress.parse(broker.url)
    found: list[str] = []
    async with aiomqtt.Client(
        address.host,
        address.port,
        identifier=identifier,
        clean_session=False,
        username=address.username,
        password=address.password,
    ) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                async for message in client.messages:
                    found.append(str(message.topic).split("/")[-2])
    return found
