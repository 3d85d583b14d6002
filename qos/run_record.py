"""A run as it was kept, read back: the vehicles' journals and the ledger, side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .journal import JournalEntry, salvage_journal
from .ledger import Ledger, NodeRecord, RecordedOutcome
from .run import Manifest, RunDirectory


@dataclass(frozen=True, slots=True)
class RunRecord:
    """tasks: what the vehicles' journals hold. refusals: how often nodes rejected an attempt, by reason.
    counters: what nodes and vehicles counted, added up.
    read_at_s: when this was read, Unix seconds, for a run that still goes on.
    damage: what could not be read of the run's files, a line each."""

    path: Path
    manifest: Manifest
    tasks: list[JournalEntry]
    outcomes: list[RecordedOutcome]
    nodes: list[NodeRecord]
    refusals: dict[str, int]
    read_at_s: float
    damage: tuple[str, ...] = ()
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def goes_on(self) -> bool:
        """Whether the run has not been finished; true for ever of one that was killed."""
        return self.manifest.ended_at is None


@contextmanager
def salvaged_ledger(run: RunDirectory, damage: list[str]) -> Iterator[Ledger | None]:
    """The run's ledger, or what can be read of it; None where there is none. Says what is missing in `damage`.

    Raises RunError for a ledger of another schema version, or that may not be read.
    """
    if not run.ledger_path.is_file():
        damage.append("there is no ledger: no recorder has written to this run, and only journals tell of its tasks")
        yield None
        return
    with Ledger.salvage(run) as ledger:
        yield ledger
        damage += ledger.damage


def read_run(run: RunDirectory) -> RunRecord:
    """Read a run that is over or still goes on, and of damaged files what can be read.

    Raises RunError for a manifest that cannot be read, and for a ledger of another schema version.
    """
    # The ledger first: a task that ends in between is then open or unrecorded, never unknown.
    outcomes: list[RecordedOutcome] = []
    nodes: list[NodeRecord] = []
    refusals: dict[str, int] = {}
    counters: Counter[str] = Counter()
    damage: list[str] = []
    with salvaged_ledger(run, damage) as ledger:
        if ledger is not None:
            outcomes, nodes, refusals = ledger.outcomes(), ledger.nodes(), ledger.refusals()
            counters = ledger.counters()
    tasks: list[JournalEntry] = []
    for path in run.journal_paths():
        entries, missing = salvage_journal(path)
        tasks += entries
        damage += missing
    return RunRecord(
        path=run.path,
        manifest=run.read_manifest(),
        tasks=tasks,
        outcomes=outcomes,
        nodes=nodes,
        refusals=refusals,
        read_at_s=time.time(),
        damage=tuple(damage),
        counters=counters,
    )
