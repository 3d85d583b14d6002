"""Files for people and other programs that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..bus.errors import RunError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a draft to write to, which takes the file's place in the end, or is deleted where that fails.

    Raises RunError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise RunError(f"cannot write {path} ({why}): give a file in a folder that can be written") from error
    finally:
        with suppress(OSError):
            draft.unlink()
