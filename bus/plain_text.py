"""Text that somebody else chose, made safe to print and to hand on.

Control characters would steer a terminal, marks of writing direction make a line read as another one, and what has no
shape at all (zero-width characters, tags) hides words from people that a model still reads.
"""

from __future__ import annotations

import unicodedata

# Some scripts and most emoji cannot be written without these two joiners.
_JOINERS = "\u200c\u200d"
_SPACES = frozenset(("Zs", "Zl", "Zp"))
_LINE_BREAKS_AND_TABS = "\t\n\v\f\r\x85"


def plain_text(text: str) -> str:
    """The text on one line, without control, direction and invisible characters; every kind of space is a space."""
    if text.isprintable():
        return text
    return "".join(map(_plain, text))


def _plain(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character in _LINE_BREAKS_AND_TABS or unicodedata.category(character) in _SPACES else ""
