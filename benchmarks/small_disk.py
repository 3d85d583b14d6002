"""A small file system of its own, which can be filled up: what a full disk is to whoever writes there."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_SIZE = "48m"
_FILLER_BYTES = 64 * 1024


class SmallDisk:
    """Mounts a tmpfs at a folder for as long as it is entered. is_there: False where this user may not mount one."""

    def __init__(self, folder: Path) -> None:
        self.is_there = False
        self._folder = folder
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(self._folder)]
        with contextlib.suppress(OSError):
            self.is_there = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.is_there:
            return
        self.free()
        # What was written there is wanted after the end, so it moves to the folder below.
        kept = {path.name: path.read_bytes() for path in self._folder.iterdir()}
        subprocess.run(["umount", "--lazy", str(self._folder)], capture_output=True, check=False)
        for name, content in kept.items():
            (self._folder / name).write_bytes(content)

    def fill(self, database: Path) -> None:
        """Take all that is free. database: of SQLite in WAL mode, whose log is emptied first, so that it has to grow.

        Otherwise it would go on for a while in the room that its log has already.
        """
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(database, timeout=1.0)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with self._filler.open("ab", buffering=0) as filler:
            for size_bytes in (_FILLER_BYTES, 4096, 1):
                self._append(filler.fileno(), bytes(size_bytes))

    def _append(self, file: int, piece: bytes) -> None:
        while True:
            try:
                if os.write(file, piece) < len(piece):
                    return
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)
