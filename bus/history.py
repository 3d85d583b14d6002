"""What a process did and when, one JSON line per event, for whoever checks a run afterwards.

    ROADSIDE_HISTORY=FOLDER roadside edge --name edge-1     writes FOLDER/edge-1.jsonl

Off unless the variable is set. A line goes out in one write to a file opened for appending, so a process that is killed
leaves whole lines, and at most one torn one where the disk was full. `at_s` is CLOCK_MONOTONIC, which all processes of
one machine share; the wall clock, which may be wrong or set anew, is never written. qos/history.py reads it all back.

To see what a fault costs at an exact step of a task's way, a process can be made to stand still there: the file
`EVENT.NAME.stop` in the folder stops process NAME (SIGSTOP) when it notes EVENT for the next time, and disappears.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from .defaults import HISTORY_VARIABLE
from .errors import ConfigurationError

_log = structlog.get_logger(__name__)


class History:
    """One process's events. Closed by `close`, or with its process.

    is_on: False where nothing is written; asked only where finding out what to write costs something.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        """Raises OSError where the folder cannot be written to."""
        self.is_on = folder is not None
        self._name = name
        self._folder = Path() if folder is None else folder
        self._file = -1
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            # Several histories of one process may share the file: appending writes never mix.
            self._file = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @classmethod
    def of_process(cls, name: str) -> Self:
        """Where the environment says; one that writes nothing where it does not.

        Raises ConfigurationError for a folder that cannot be written to.
        """
        folder = os.environ.get(HISTORY_VARIABLE)
        try:
            return cls(Path(folder) if folder else None, name)
        except OSError as error:
            raise ConfigurationError(
                f"{HISTORY_VARIABLE}={folder} cannot be written to ({error.strerror}): name another folder, or unset it"
            ) from None

    def begin(self) -> None:
        """A new life of the process: whatever an earlier one held is gone."""
        self.note("process.began", pid=os.getpid(), boot=uuid.uuid4().hex[:12])

    def note(self, event: str, **fields: Any) -> None:
        """event: as in qos/history.py. fields: plain values."""
        if not self.is_on:
            return
        line = msgspec.json.encode({"at_s": time.monotonic(), "process": self._name, "event": event, **fields})
        try:
            os.write(self._file, line + b"\n")
        except OSError as error:
            # What a fleet does is worth more than what is known of it.
            self.is_on = False
            _log.error("history ends here", process=self._name, why=str(error))
            return
        with contextlib.suppress(FileNotFoundError):
            stop_file(self._folder, self._name, event).unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self.is_on = -1, False


def stop_file(folder: Path, name: str, event: str) -> Path:
    """What makes a process stand still at its next event of that name."""
    return folder / f"{event}.{name}.stop"


NO_HISTORY = History(None, "")
