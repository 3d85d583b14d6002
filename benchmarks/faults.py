"""`roadside bench faults`: break a real fleet, seed by seed, and hold its histories against the contract.

A seed draws a fault of the matrix (faults_matrix.py), whom it hits, at which step of a task's way and for how long. The
fleet (faults_fleet.py) drives on all the while. Once the fault is over and the fleet answers again, every task that was
created meanwhile is given time to end, and the checker (qos/contract.py) reads that stretch of the histories and the
vehicles' journals. At the end it reads all of them once more, beside the recorder's ledger.

`recovery_ms`: from the end of the fault (a broker accepts again, a link is whole, a process runs) to the first answer
of a node to a task that was created since the fault began, a killed edge's from its death. Where edge and cloud are
torn apart: the longest time from the cut, or from the question if that came later, until an edge went on alone.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..bus.broker import find_mosquitto
from ..bus.errors import BrokerError, ConfigurationError
from ..qos.contract import Findings, check
from ..qos.history import Event, read_history
from ..qos.report import percentile, summarise
from ..qos.run import this_machine
from ..qos.violations import Violation
from .faults_fleet import CONTEXT_TTL_S, FaultFleet
from .faults_matrix import FAULTS, Scene, fault_of, is_answer_of_a_node

_SETTLING_S = 0.3
_RECOVERY_TIMEOUT_S = 20.0
_ENDING_TIMEOUT_S = 10.0
_TORN_APART = ("edge-cloud-cut", "edge-cloud-black-hole", "cloud-killed", "cloud-stopped")
_NEEDS_DISK = "journal-disk-full"

ProgressBar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class FaultOptions:
    """The flags of `roadside bench faults`.

    fault: only this one. keep: a folder for the run with all its histories. at_most_s: no seed is begun later than so
    many seconds after the first.
    """

    seeds: int = 23
    first_seed: int = 0
    fault: str | None = None
    keep: Path | None = None
    at_most_s: float = math.inf


def measure_faults(
    options: FaultOptions, progress_bar: ProgressBar, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The bench's JSON object; about six seconds for a seed. say: is told of every violation, with its history.

    Raises ConfigurationError for a fault that there is not, BrokerError where there is no mosquitto.
    """
    if options.fault is not None and options.fault not in FAULTS:
        raise ConfigurationError(f"there is no fault {options.fault!r}; there are {', '.join(FAULTS)}")
    if find_mosquitto() is None:
        raise BrokerError("mosquitto is not installed: install it (`apt-get install mosquitto`) and try again")
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="roadside-faults-", ignore_cleanup_errors=True) as folder:
        path = options.keep or Path(folder) / "run"
        with progress_bar("starting the fleet", options.seeds) as advance:
            rows, whole = asyncio.run(_measure(options, path, lambda: advance(1), say))
    return {
        "bench": "faults",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": {
            "seeds": len(rows),
            "first_seed": options.first_seed,
            "fault": options.fault,
            "context_ttl_s": CONTEXT_TTL_S,
            "left_out": [] if whole.pop("has_small_disk") else [_NEEDS_DISK],
            "load_average_1m": load_before,
            "load_average_1m_after": os.getloadavg()[0],
        },
        "rows": rows,
        "recovery": recovery_by_fault(rows),
        "whole": whole,
        "ratios": _poison_ratio(rows),
    }


async def _measure(
    options: FaultOptions, path: Path, advance: Callable[[], None], say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with FaultFleet(path) as fleet:
        has_small_disk = fleet.disk is not None and fleet.disk.is_there
        give_up_s = time.monotonic() + options.at_most_s
        faults = tuple(name for name in FAULTS if has_small_disk or name != _NEEDS_DISK)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            if time.monotonic() > give_up_s:
                break
            fault = options.fault or fault_of(seed, faults)
            if fault not in faults:
                raise ConfigurationError(f"{fault} needs a small file system: run as somebody who may mount a tmpfs")
            row, violations = await _one_seed(fleet, seed, fault)
            rows.append(row)
            for violation in violations:
                say(f"seed {seed}, {fault} ({row['step']}): {violation}")
                for event in violation.events:
                    say(f"    {event.line()}")
            if violations:
                say(f"again: roadside bench faults --first-seed {seed} --seeds 1 --fault {fault}")
            advance()
        await fleet.finish()
    whole = _check_all(fleet, say)
    return rows, whole | {"has_small_disk": has_small_disk}


async def _one_seed(fleet: FaultFleet, seed: int, fault: str) -> tuple[dict[str, Any], list[Violation]]:
    began_s = time.monotonic()
    scene = Scene(fleet, random.Random(f"{seed} {fault}"))
    scene.recovers = lambda event: is_answer_of_a_node(event) and _created_s(fleet, event) >= scene.broken_s
    fleet.note("seed.began", seed=seed, fault=fault)
    await FAULTS[fault](scene)
    fleet.check()
    recovered = await fleet.until(scene.recovers, since_s=scene.mended_s, timeout_s=_RECOVERY_TIMEOUT_S)
    await asyncio.sleep(_SETTLING_S)
    until_s = time.monotonic()
    await _until_ended(fleet, since_s=began_s, until_s=until_s)
    fleet.look()
    findings = check(fleet.events, fleet.journals(), since_s=began_s, until_s=until_s)
    latencies_ms = _latencies_ms(fleet.events, scene)
    row = {
        "seed": seed,
        "fault": fault,
        "target": scene.target,
        "step": scene.step,
        "created": findings.created,
        **_counts(findings),
        "expired_but_computed_ms": findings.computed_in_vain_ms,
        "recovery_ms": _recovery_ms(fault, fleet.events, scene, recovered),
        "broken_ms": (scene.mended_s - scene.broken_s) * 1000,
        "before_ms": latencies_ms[0] if fault == "poison" else [],
        "during_ms": latencies_ms[1] if fault == "poison" else [],
        "took_s": time.monotonic() - began_s,
    }
    fleet.note("seed.ended", seed=seed)
    fleet.forget_before(began_s)
    return row, findings.violations


async def _until_ended(fleet: FaultFleet, *, since_s: float, until_s: float) -> None:
    """Wait until every task created in that time has an ending, or too long for that."""
    give_up_s = time.monotonic() + _ENDING_TIMEOUT_S
    while time.monotonic() < give_up_s:
        fleet.look()
        created = {_task(each) for each in fleet.events if each.name == "task.created" and each.at_s <= until_s}
        ended = {_task(each) for each in fleet.events if each.name == "task.ended"}
        if created <= ended:
            return
        await asyncio.sleep(0.05)


def _counts(findings: Findings) -> dict[str, int]:
    return {
        "lost": findings.count("lost") + findings.count("unjournalled"),
        "duplicate_visible": findings.count("duplicate-visible") + findings.count("two-endings"),
        "stale_shown": findings.count("stale-shown"),
        "wrong_context": findings.count("wrong-context"),
        "orphan_contexts": findings.count("orphan-context"),
        "begun_after_deadline": findings.count("expired-computed"),
    }


def _check_all(fleet: FaultFleet, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything once more, over the whole run, and beside what the recorder heard."""
    events, torn = read_history(fleet.history_folder)
    findings = check(events, fleet.journals())
    for violation in findings.violations:
        say(f"over the whole run: {violation}")
    tasks = summarise(fleet.run)["tasks"]
    ledger = {key: tasks[key] for key in ("lost", "duplicate_visible", "stale_shown", "unrecorded")}
    return {
        "events": len(events),
        "torn_lines": torn,
        "created": findings.created,
        **_counts(findings),
        **{f"ledger_{key}": count for key, count in ledger.items()},
    }


def _task(event: Event) -> tuple[str, str]:
    return event.process, event.fields["task"]


def _created_s(fleet: FaultFleet, ended: Event) -> float:
    for event in fleet.events:
        if event.name == "task.created" and _task(event) == _task(ended):
            return event.at_s
    return 0.0


def _recovery_ms(fault: str, events: list[Event], scene: Scene, recovered: Event | None) -> float | None:
    if fault in _TORN_APART:
        alone_ms = _standalone_ms(events, scene.broken_s)
        return max(alone_ms, default=None)
    return None if recovered is None else (recovered.at_s - scene.mended_s) * 1000


def _standalone_ms(events: list[Event], cut_s: float) -> list[float]:
    """For each session that was torn: from the cut, or the question that was left unanswered, to going on alone."""
    found: list[float] = []
    for gone in events:
        if gone.name != "cloud.gone" or gone.at_s < cut_s:
            continue
        wanted = [
            each
            for each in events
            if each.name == "token.wanted"
            and each.fields["session"] == gone.fields["session"]
            and each.at_s <= gone.at_s
        ]
        # Asked once more it is the same question; after a roll-back it is another one.
        asked_s = next((each.at_s for each in wanted if _question(each) == _question(wanted[-1])), cut_s)
        found.append((gone.at_s - max(cut_s, asked_s)) * 1000)
    return found


def _question(wanted: Event) -> tuple[int, int]:
    return wanted.fields["rollback"], wanted.fields["up_to"]


def _latencies_ms(events: list[Event], scene: Scene) -> tuple[list[float], list[float]]:
    """Of answers to tasks that were created before the fault, and of those created during it."""
    created_s = {_task(each): each.at_s for each in events if each.name == "task.created"}
    before: list[float] = []
    during: list[float] = []
    for event in events:
        if is_answer_of_a_node(event) and (at_s := created_s.get(_task(event))) is not None:
            if at_s < scene.broken_s:
                before.append(event.fields["shown_ms"])
            elif at_s < scene.mended_s:
                during.append(event.fields["shown_ms"])
    return before, during


def recovery_by_fault(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each fault, over its seeds: tasks, violations, and how long it took to recover."""
    table: list[dict[str, Any]] = []
    for fault in FAULTS:
        own = [row for row in rows if row["fault"] == fault]
        if not own:
            continue
        times_ms = [row["recovery_ms"] for row in own if row["recovery_ms"] is not None]
        names = ("lost", "duplicate_visible", "stale_shown", "wrong_context", "orphan_contexts", "begun_after_deadline")
        table.append(
            {
                "fault": fault,
                "seeds": len(own),
                "created": sum(row["created"] for row in own),
                "violations": sum(row[name] for row in own for name in names),
                "recovered": len(times_ms),
                "recovery_ms_p50": percentile(times_ms, 0.50),
                "recovery_ms_p99": percentile(times_ms, 0.99),
                "computed_in_vain_ms": sum(row["expired_but_computed_ms"] for row in own) / len(own),
            }
        )
    return table


def _poison_ratio(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The other tasks' latency while somebody poisons the bus, over that just before."""
    before = [each for row in rows for each in row["before_ms"]]
    during = [each for row in rows for each in row["during_ms"]]
    ratios: dict[str, float] = {}
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        then_ms, now_ms = percentile(before, share), percentile(during, share)
        if then_ms and now_ms:
            ratios[f"poison_latency_{name}"] = now_ms / then_ms
    return ratios


def violations_in(result: dict[str, Any]) -> int:
    """How often the contract was broken, in any seed or over the whole run."""
    names = ("lost", "duplicate_visible", "stale_shown", "wrong_context", "orphan_contexts", "begun_after_deadline")
    whole = result["whole"]
    over_all = sum(count for key, count in whole.items() if key in names or key in _OF_THE_LEDGER)
    return max(sum(row[name] for row in result["rows"] for name in names), over_all)


_OF_THE_LEDGER = ("ledger_lost", "ledger_duplicate_visible", "ledger_stale_shown")
