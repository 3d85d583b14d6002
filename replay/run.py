"""`roadside replay RUN`: every process of a recorded run, or one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bus.errors import ConfigurationError, RunError
from ..bus.message_log import PACKED_SUFFIX, SUFFIX, LoggedLife, read_lives
from .comparison import ProcessReplay
from .vehicle import replay_vehicle


@dataclass(frozen=True, slots=True)
class RunReplay:
    """processes: in the order of their names."""

    run: Path
    processes: list[ProcessReplay]

    @property
    def differs(self) -> bool:
        return any(each.differences for each in self.processes)

    def as_plain(self) -> dict[str, Any]:
        """What `roadside replay --json` prints."""
        return {
            "run": str(self.run),
            "compared": sum(each.compared for each in self.processes),
            "differences": sum(len(each.differences) for each in self.processes),
            "processes": [each.as_plain() for each in self.processes],
        }


def replay_run(run: Path, *, node: str | None = None, say: Callable[[str], None] = lambda line: None) -> RunReplay:
    """Blocking. node: the only one to replay. say: is told what is being done.

    Raises RunError where there is no such recording, or one that cannot be replayed.
    """
    lives = _lives_of(run)
    if node is not None and node not in lives:
        raise ConfigurationError(f"{run} has no messages of {node!r}; there are {', '.join(lives)}")
    processes: list[ProcessReplay] = []
    of_nodes = {name: of_one for name, of_one in lives.items() if of_one[-1].begun.role != "vehicle"}
    for name in lives.keys() - of_nodes.keys():
        if node in (None, name):
            say(f"{name} decides again")
            processes.append(_vehicle(name, lives[name]))
    if of_nodes.keys() & ({node} if node is not None else of_nodes.keys()):
        # Imported here: a vehicle is replayed without torch.
        from .nodes import replay_nodes

        say(f"{', '.join(of_nodes)} answer again")
        processes += asyncio.run(replay_nodes(of_nodes, node))
    return RunReplay(run, sorted(processes, key=lambda each: each.name))


def _lives_of(run: Path) -> dict[str, list[LoggedLife]]:
    """By process. A run keeps its messages in a folder of that name; a folder of recordings alone does as well."""
    folder = run / "messages" if (run / "messages").is_dir() else run
    paths = sorted([*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{SUFFIX}{PACKED_SUFFIX}")])
    if not paths:
        raise RunError(f"{run} holds no recorded messages: record them with `roadside demo --record-messages`")
    lives = {path.name.removesuffix(PACKED_SUFFIX).removesuffix(SUFFIX): read_lives(path) for path in paths}
    return {name: of_one for name, of_one in lives.items() if of_one}


def _vehicle(name: str, lives: list[LoggedLife]) -> ProcessReplay:
    result = ProcessReplay(name, "vehicle")
    for life in lives:
        replayed = replay_vehicle(life)
        result.compared += replayed.compared
        result.left_out += replayed.left_out
        result.differences += replayed.differences
    return result
