"""`roadside top`: what its screen says, that it fits, and that nobody else can write on the terminal with it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from roadside.bus import topics
from roadside.bus.broker import Broker
from roadside.bus.messages import Envelope, Message, NodeState, Outcome
from roadside.bus.subscription import Received
from roadside.bus.topics import Topic
from roadside.bus.transport import Bus
from roadside.qos.last_minute import LastMinute
from roadside.ui.fleet_view import FleetView
from roadside.verbs.top_figures import figures
from roadside.verbs.top_screen import Frame, screen, sparkline

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")


class Fleet:
    """What has been heard, from a clock that the test sets."""

    def __init__(self) -> None:
        self.view, self.minute = FleetView(0.0), LastMinute(0.0)
        self.view.connected(0.0)
        self._sequence = 0

    def hear(self, topic: Topic, body: Message, now_s: float, **names: str) -> None:
        self._sequence += 1
        envelope = Envelope(1, "sender", "boot", self._sequence, 0.0, body)
        self.view.hear(Received(topic, {"fleet": "f", **names}, envelope), now_s)
        if isinstance(body, Outcome):
            self.minute.add(names["vehicle"], body, now_s)

    def text(self, now_s: float, *, height: int | None = None, width: int = 80) -> str:
        console = Console(file=io.StringIO(), width=width, highlight=False)
        console.print(screen(self.view, self.minute, now_s, Frame("title", "12:00:00", keys="q quit", height=height)))
        return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
def drive(an_outcome: Callable[..., Outcome], a_state: Callable[..., NodeState]) -> Fleet:
    fleet = Fleet()
    fleet.hear(topics.NODE_STATE, a_state(), 1.0, node="edge-1")
    fleet.hear(topics.VEHICLE_STATE, a_state(node="car-1", role="vehicle", load=None), 1.0, vehicle="car-1")
    fleet.hear(topics.OUTCOME, an_outcome(), 2.0, vehicle="car-1")
    return fleet


def line_of(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return line.split()


def test_it_tells_nodes_vehicles_and_the_last_minute(drive: Fleet):
    text = drive.text(3.0)
    assert line_of(text, "last minute") == (
        ["last", "minute", "1", "tasks", "0.3/s", "100%", "in", "time", "p50", "84", "p90", "84", "p99", "84", "ms"]
    )
    assert line_of(text, "edge-1") == ["edge-1", "edge", "alive", "1/1", "1", "40", "ms", "0.0", "400", "2", "small"]
    vehicle = line_of(text, "car-1")
    assert vehicle[:8] == ["car-1", "alive", "0.3", "100%", "84", "cloud", "1", "s"]
    assert " ".join(vehicle[8:]).startswith("the car slows down")


def test_who_is_silent_and_who_has_left(drive: Fleet, a_state: Callable[..., NodeState]):
    assert line_of(drive.text(11.0), "edge-1")[2:4] == ["mute", "10"]
    drive.hear(topics.NODE_STATE, a_state(alive=False), 12.0, node="edge-1")
    assert line_of(drive.text(15.0), "edge-1")[2:4] == ["left", "3"]


def test_a_lost_broker_is_said(drive: Fleet):
    drive.view.disconnected("no connection to the broker", 5.0)
    assert "no connection to the broker for 3 s" in drive.text(8.0)


def test_an_empty_fleet_says_so():
    text = Fleet().text(1.0)
    assert "no node has announced itself yet" in text
    assert "no vehicle has announced itself yet" in text


@settings(deadline=None, max_examples=40)
@given(nodes=st.integers(0, 60), vehicles=st.integers(0, 60), height=st.integers(14, 50), width=st.integers(80, 130))
def test_any_fleet_fits_the_terminal_and_nobody_is_dropped_silently(
    an_outcome: Callable[..., Outcome],
    a_state: Callable[..., NodeState],
    nodes: int,
    vehicles: int,
    height: int,
    width: int,
):
    fleet = Fleet()
    for number in range(nodes):
        name = f"edge-with-a-rather-long-name-{number}"
        fleet.hear(topics.NODE_STATE, a_state(node=name, model="m" * 90), 1.0, node=name)
    for number in range(vehicles):
        outcome = an_outcome(task_id=f"t-{number}", text="a word " * 40)
        fleet.hear(topics.OUTCOME, outcome, 1.0, vehicle=f"v-{number}")
    text = fleet.text(2.0, height=height, width=width)
    lines = text.splitlines()
    # Who answered counts as a node, announced or not.
    nodes += bool(vehicles)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    hidden = sum(int(line.split()[1]) for line in lines if line.startswith("and "))
    shown = sum(line.startswith(("edge-with", "v-", "cloud-1")) for line in lines)
    assert shown + hidden == nodes + vehicles


hostile = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(name=hostile, said=hostile, model=hostile)
def test_no_name_and_no_answer_can_steer_the_terminal(
    an_outcome: Callable[..., Outcome], a_state: Callable[..., NodeState], name: str, said: str, model: str
):
    plain, fleet = Fleet().text(2.0).count("\n"), Fleet()
    said = f"\x1b]0;owned\x07\x1b[2J\x9b2J\r\n{said}\u202e"
    fleet.hear(topics.NODE_STATE, a_state(node=name, model=f"\x1b[31m{model}"), 1.0, node=name)
    fleet.hear(topics.OUTCOME, an_outcome(text=said, node=name), 1.0, vehicle=name)
    text = fleet.text(2.0)
    unseen = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")}
    assert unseen <= {"\n", "\u200c", "\u200d"}
    # A line for each of the two members instead of the one that says that there is none.
    assert text.count("\n") == plain


def test_a_sparkline_is_as_long_as_its_values():
    assert sparkline([None, 0.0, 1.0, 2.0]) == " ▁▅█"
    assert sparkline([None, 0.0]) == "  "
    assert sparkline([]) == ""


@pytest.mark.timeout(60)
async def test_once_prints_a_plain_screen_of_a_live_fleet(
    best_broker: Broker, fleet: str, an_outcome: Callable[..., Outcome], a_state: Callable[..., NodeState]
):
    async with (
        Bus(url=best_broker.url, fleet=fleet, name="edge-1") as edge,
        Bus(url=best_broker.url, fleet=fleet, name="car-1") as car,
    ):
        await edge.publish(topics.NODE_STATE, a_state())
        arguments = ("top", "--broker", best_broker.url, "--fleet", fleet, "--once", "--listen", "3")
        shown = await asyncio.create_subprocess_exec(*ROADSIDE, *arguments, stdout=subprocess.PIPE)
        reading = asyncio.create_task(shown.communicate())
        number = 0
        while not reading.done():
            number += 1
            await car.publish(topics.OUTCOME, an_outcome(task_id=f"t-{number}", text="it \x1b[2Jbrakes"))
            await asyncio.sleep(0.2)
        text = (await reading)[0].decode()
    assert shown.returncode == 0
    assert "\x1b" not in text
    assert line_of(text, "edge-1")[2] == "alive"
    assert " ".join(line_of(text, "car-1")).endswith("it [2Jbrakes")


@pytest.mark.timeout(60)
def test_on_a_terminal_q_ends_it_and_the_terminal_is_as_before(best_broker: Broker, fleet: str):
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [*ROADSIDE, "top", "--broker", best_broker.url, "--fleet", fleet, "--interval", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
    )
    shown = b""
    while b"q quit" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"p")
    while b"paused" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"q")
    assert process.wait(20) == 0
    while not shown.endswith(b"\x1b[?25h") and b"\x1b[?1049l" not in shown:
        shown += os.read(ours, 4096)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_the_figures_are_those_of_the_screen_and_plain_json(drive: Fleet, a_state: Callable[..., NodeState]):
    drive.hear(topics.NODE_STATE, a_state(alive=False), 3.0, node="edge-1")
    told = json.loads(json.dumps(figures(drive.view, drive.minute, 4.0)))
    assert told["connected"]
    assert told["last_minute"]["p50_ms"] == 84.0
    (left,) = [node for node in told["nodes"] if node["node"] == "edge-1"]
    assert (left["condition"], left["condition_s"], left["load"]) == ("left", 1.0, None)
    # It answered, and has not told of itself.
    (silent,) = [node for node in told["nodes"] if node["node"] == "cloud-1"]
    assert (silent["condition"], silent["answers_per_s"]) == (None, 0.25)
    (car,) = told["vehicles"]
    assert (car["condition"], car["latest"]["age_s"], car["latest"]["place"]) == ("alive", 2.0, "cloud")
