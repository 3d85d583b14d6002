"""Models that are built without weights, by one thread at a time.

While transformers builds a model whose weights it will read, it replaces torch's functions of initialisation in every
thread, and puts back afterwards what it found. Two threads that do so at once can leave the empty functions behind, and
whatever module is made later in the process begins with what its memory happened to hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def alone_in_the_library() -> Iterator[None]:
    """For calls of transformers that load a model."""
    with _ONE_AT_A_TIME:
        yield


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Modules that are made inside have no weights to speak of."""
    from transformers.initialization import no_init_weights

    with _ONE_AT_A_TIME, no_init_weights():
        yield
