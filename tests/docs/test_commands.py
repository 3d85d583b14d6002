"""Every command that README.md and docs/ show: run in a scratch folder where that is cheap, else read as it would be.

A command is an indented line of a block that has one; `roadside ...` between backticks counts, too, and is read. What
is done with each is said by the first of `RULES` that fits.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from roadside.bus.broker import Broker
from roadside.datasets.drivelog import DriveLog, bundled_log_path
from roadside.datasets.jpeg import encode_jpeg

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

# quick, slow: run, to its end; stays: run, and stopped after a while; read: verb and flags must exist, no more.
How = Literal["quick", "slow", "stays", "read"]


@dataclass(frozen=True)
class Rule:
    pattern: str
    how: How
    why: str = ""


# fmt: off
_ROWS: tuple[tuple[str, How, str], ...] = (
    (r"\.\.\.(?!$)|\b(URL|ID|DIR|RUN2?|FILE|NAME|LOG|PLACE|RAGDRIVER|LEARNER)\b", "read", "a placeholder"),
    (r"rtsp://|/dev/video|--url|--device cuda|10\.0\.0\.|--broker mqtts?:", "read", "another machine, a camera, a GPU"),
    (r"HuggingFaceTB|my-model|my-policy|my\.npz|--environment fleet", "read", "a hub, or what takes minutes to make"),
    (r"^roadside (secure|broker --tls)|--tls |--secure", "read", "tests/security, tests/docs/test_containers.py"),
    (r"^roadside (--help|topics|check|report|sweep --example|log (info|show))", "quick", ""),
    (r"^roadside demo --policy random --duration 20 --run first$", "quick", ""),
    (r"^roadside (top|watch)", "stays", ""),
    (r"^roadside (broker|edge|cloud|record|learner|vehicle|ui|link)", "read", "tests of the processes and the demo"),
    (r"^roadside demo .*--ui|^roadside (log export|replay)", "read", "tests of live page, exports and replays"),
    (r"^roadside bench (?!bus)|^roadside (train|fine-tune|sweep|evaluate)", "read", "minutes; they have tests"),
    (r"^roadside (demo|ask|fleet|log make|bench)", "slow", ""),
)
# fmt: on
RULES = tuple(Rule(*row) for row in _ROWS)
# A drive that shows that a command works need not be long.
SHORTER = ((r"--duration \d+", "--duration 2"), (r"runs/\S+", "first"), (r"--count \d+", "--count 1"))

# Programs that are not ours; what follows them is not looked at, except below.
FOREIGN = frozenset({"docker", "podman", "export", ".", "jq", "sudo", "cp", "chmod", "ssh", "scp", "mosquitto", "kill"})
PROGRAMS = FOREIGN | {"roadside", "python", "make", "pip", "pytest"}


@dataclass(frozen=True)
class Command:
    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """Without what a shell does with its output."""
        return shlex.split(re.split(r"\s+(?:2?>|\||&)", self.text)[0])


def blocks(page: Path) -> Iterator[list[str]]:
    """Indented blocks, and fenced ones of a shell, their lines joined where they go on."""
    text = re.sub(
        r"(?ms)^```(?:sh|bash|console|shell)\n(.*?)^```$", lambda fence: _indented(fence[1]), page.read_text()
    )
    text = re.sub(r"\\\n\s+", "", text)
    for block in re.findall(r"(?:^    .*\n|^[ ]*\n(?=    ))+", text, re.MULTILINE):
        yield [line.strip() for line in block.splitlines() if line.strip()]


def _indented(block: str) -> str:
    return "\n" + "".join(f"    {line}\n" for line in block.splitlines())


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in blocks(page):
            if not any(line.split()[0] in PROGRAMS - {"."} and len(line.split()) > 1 for line in block):
                continue
            for line in block:
                if line.startswith("#"):
                    continue
                # What is said about a command stands behind two spaces or a hash.
                shown = re.split(r"\s{2,}|\s+#\s", line)[0]
                for part in re.split(r"\s+(?:&&|;)\s+|;\s+|\s+&(?:\s+|$)", shown):
                    if part:
                        yield Command(page.name, part)


def mentions() -> Iterator[Command]:
    for page in PAGES:
        # Code of indented blocks is `commands`'.
        prose = re.sub(r"^    .*$", "", page.read_text(), flags=re.MULTILINE)
        for text in re.findall(r"`(roadside [a-z-][^`]*)`", prose):
            yield Command(page.name, " ".join(text.split()))


COMMANDS = tuple(dict.fromkeys(commands()))
OURS = tuple(command for command in COMMANDS if command.text.split()[0] == "roadside")
BY_TEXT = {command.text: command for command in OURS}


def rule_of(command: Command) -> Rule:
    for rule in RULES:
        if re.search(rule.pattern, command.text):
            return rule
    pytest.fail(
        f"{command.page} shows `{command.text}`, and nothing says what the tests do with it: add a rule to RULES in"
        f" {Path(__file__).relative_to(ROOT)}, `quick` if it ends within seconds"
    )


def texts(how: How) -> list[str]:
    return sorted(text for text, command in BY_TEXT.items() if rule_of(command).how == how)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_every_command_is_known_and_its_flags_exist(parse_command: Callable[..., str], command: Command):
    program, *arguments = command.words
    match program:
        case "roadside":
            rule_of(command)
            parse_command(arguments)
        case "python":
            assert (ROOT / arguments[0]).exists(), arguments[0]
        case "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), arguments[0]
        case "pip":
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            for extras in re.findall(r"roadside\[([\w,-]+)\]", command.text):
                assert set(extras.split(",")) <= set(known)
        case "docker" | "podman":
            for file in re.findall(r"--file (\S+)", command.text):
                assert (ROOT / file).exists(), file
        case _:
            assert program in FOREIGN, (
                f"{command.page} shows `{command.text}` among commands: add the program to FOREIGN in"
                f" {Path(__file__).relative_to(ROOT)}, or write what is no command into a block of its own"
            )


@pytest.mark.parametrize("mention", dict.fromkeys(mentions()), ids=lambda mention: f"{mention.page}: {mention.text}")
def test_every_command_that_prose_names_has_the_flags_that_it_names(
    parse_command: Callable[..., str], mention: Command
):
    parse_command(mention.words[1:], may_be_incomplete=True)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the guides' commands name: a log, a picture, a video, files of settings."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "bdd-x").symlink_to(bundled_log_path())
    (folder / "my-log").symlink_to(bundled_log_path())
    clip = DriveLog.open(bundled_log_path()).clips[0]
    (folder / "frame.jpg").write_bytes(encode_jpeg(clip.frame(2.0), quality=85))
    shutil.copy(clip.video_path, folder / "drive.mp4")
    (folder / "edge-1.toml").write_text('name = "edge-1"\n')
    guide = (ROOT / "docs" / "running-a-fleet.md").read_text()
    block = next(block for block in re.findall(r"(?:^    .*\n|^\n)+", guide, re.MULTILINE) if "# fleet.toml" in block)
    text = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    (folder / "fleet.toml").write_text(re.sub(r"duration_s = \d+", "duration_s = 2", text))
    (folder / "runs").mkdir()
    return folder


@pytest.fixture
def environment(best_broker: Broker) -> dict[str, str]:
    here = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "ROADSIDE_BROKER": best_broker.url, "COLUMNS": "100"}


def runs_to_its_end(text: str, scratch: Path, environment: dict[str, str], fleet: str) -> None:
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    if text.startswith("roadside demo"):
        text += f" {fleet}" + ("" if "--duration" in text else " --duration 2")
    # A demo starts a broker of its own.
    given = {key: value for key, value in environment.items() if key != "ROADSIDE_BROKER"}
    done = subprocess.run(["bash", "-c", text], cwd=scratch, env=given, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{text}\n{done.stderr[-2000:]}"
    assert ">" in text or done.stdout.strip(), "it says nothing"


def drives_first(text: str) -> tuple[bool, str]:
    """What makes a run comes before what reads it."""
    return not text.startswith("roadside demo"), text


@pytest.mark.timeout(200)
@pytest.mark.parametrize("text", sorted(texts("quick"), key=drives_first))
def test_a_quick_command_does_what_the_page_says(text: str, scratch: Path, environment: dict[str, str]):
    # Every process of a test costs seconds to start: here the vehicle drives alone.
    runs_to_its_end(text, scratch, environment, "--vehicles 1 --edges 0 --clouds 0")


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("text", sorted(texts("slow"), key=drives_first))
def test_a_slower_command_does_what_the_page_says(text: str, scratch: Path, environment: dict[str, str]):
    runs_to_its_end(text, scratch, environment, "--vehicles 1 --edges 1")


@pytest.mark.timeout(120)
def test_what_goes_on_until_it_is_stopped_starts_and_stops(scratch: Path, environment: dict[str, str]):
    processes = {
        text: subprocess.Popen(
            ["bash", "-c", f"exec {text}"],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for text in texts("stays")
    }
    assert processes
    # Whoever cannot start says so within seconds; the others are asked to stop.
    time.sleep(4)
    for text, process in processes.items():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGTERM), f"{text}: {said}"
