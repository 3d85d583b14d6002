"""A run as it was kept, read back: the vehicles' journals and the ledger, side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .journal import JournalEntry, read_journal
from .ledger import Ledger, NodeRecord, RecordedOutcome
from .run import Manifest, RunDirectory


@dataclass(frozen=True, slots=True)
class RunRecord:
    """tasks: what the vehicles' journals hold. refusals: how often nodes rejected an attempt, by reason.
    read_at_s: when this was read, Unix seconds, for a run that still goes on."""

    path: Path
    manifest: Manifest
    tasks: list[JournalEntry]
    outcomes: list[RecordedOutcome]
    nodes: list[NodeRecord]
    refusals: dict[str, int]
    read_at_s: float

    @property
    def goes_on(self) -> bool:
        """Whether the run has not been finished; true for ever of one that was killed."""
        return self.manifest.ended_at is None


def read_run(run: RunDirectory) -> RunRecord:
    """Read a run that is over or still goes on. Raises RunError where a part is missing or damaged."""
    # The ledger first: a task that ends in between is then open or unrecorded, never unknown.
    with Ledger.open(run) as ledger:
        outcomes, nodes, refusals = ledger.outcomes(), ledger.nodes(), ledger.refusals()
    return RunRecord(
        path=run.path,
        manifest=run.read_manifest(),
        tasks=[entry for path in run.journal_paths() for entry in read_journal(path)],
        outcomes=outcomes,
        nodes=nodes,
        refusals=refusals,
        read_at_s=time.time(),
    )
