"""What a vehicle's eyes can be: a replayed log, a video file or a live camera, all read in the same way."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from .bddx import Segment

# FFmpeg, too, takes all up to the last @ before the path for user name and password.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(?<=://)([^?\s]*)\?\S*")


@dataclass(frozen=True, slots=True)
class View:
    """One moment, as a source shows it.

    picture: RGB, upright, in the source's own size. moment_s: seconds from the clip's beginning.
    telemetry: VSS names to values, empty where nothing was recorded; truth: the annotation, where there is one.
    """

    clip: str
    moment_s: float
    picture: Image.Image
    telemetry: dict[str, float]
    truth: Segment | None


class Source(Protocol):
    """Where views come from. Its methods block, and are called by one thread at a time.

    losses: how often something could not be shown or known, by reason.
    """

    losses: Counter[str]

    def view(self, elapsed_s: float) -> View:
        """What is seen `elapsed_s` seconds after the drive began; it never decreases by much.

        Raises VideoError where nothing can be seen now.
        """
        ...

    def close(self) -> None: ...


def label_of(name: str) -> str:
    """A clip's name, made fit for a message: no longer than it allows, and text whatever the file system gave."""
    return name.encode("utf-8", "replace").decode()[:96]


def without_password(text: str) -> str:
    """A URL without user name, password and query, fit to be logged, kept and shown; any other text as it is."""
    return _QUERY.sub(r"\1?...", _CREDENTIALS.sub("", text))
