"""How long frames are kept: the rule that the recorder follows, and how a person writes it down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from ..bus.errors import ConfigurationError

KeepFrames = Literal["none", "sampled", "tasks"]

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class FrameRetention:
    """keep: "sampled" what vehicles publish for people, "tasks" what they asked nodes about, "none" neither.

    max_age_s: older frames are deleted. max_bytes: of all frames of a run together; the oldest give way.
    """

    keep: KeepFrames = "none"
    max_age_s: float = 24 * 3600.0
    max_bytes: int = 10**9


def parse_retention(keep: str, max_age: str, max_size: str) -> FrameRetention:
    """From words such as "sampled", "24h" and "500MB". Raises ConfigurationError, which says what is allowed."""
    return FrameRetention(
        keep=keep_frames_named(keep),
        max_age_s=_amount(max_age, _SECONDS, "--frame-retention", "90s, 30min, 24h or 7d"),
        max_bytes=int(_amount(max_size, _BYTES, "--frame-limit", "500kB, 200MB or 1GB")),
    )


def keep_frames_named(keep: str) -> KeepFrames:
    """The rule that a word means. Raises ConfigurationError."""
    choices: dict[str, KeepFrames] = {choice: choice for choice in get_args(KeepFrames)}
    if keep not in choices:
        raise ConfigurationError(f"--keep-frames takes {', '.join(choices)}, not {keep!r}")
    return choices[keep]


def _amount(text: str, units: dict[str, float] | dict[str, int], flag: str, examples: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise ConfigurationError(f"{flag} takes a number with its unit ({examples}), not {text!r}")
    return float(match[1]) * units[match[2]]
