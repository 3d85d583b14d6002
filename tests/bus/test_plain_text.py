"""Text from elsewhere, on one line and without what would steer a terminal or a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.plain_text import plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("the car stops .", "the car stops ."),
        ("\x1b[2Jgone", "[2Jgone"),
        ("a\0b\x7fc\x9bd", "abcd"),
        ("a\nb\r\nc\td", "a b  c d"),
        ("a\N{NO-BREAK SPACE}b\N{LINE SEPARATOR}c", "a b c"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}elgnats\N{POP DIRECTIONAL FORMATTING}", "elgnats"),
        ("ig\N{ZERO WIDTH SPACE}no\N{SOFT HYPHEN}re", "ignore"),
        ("x\N{TAG LATIN SMALL LETTER A}y", "xy"),
        ("سلام دنیا", "سلام دنیا"),
        ("می\N{ZERO WIDTH NON-JOINER}رود", "می\N{ZERO WIDTH NON-JOINER}رود"),
        ("日本語 🚗", "日本語 🚗"),
    ],
)
def test_examples(text, plain):
    assert plain_text(text) == plain


@given(st.text())
def test_what_is_left_is_on_one_line_and_stays_as_it_is(text):
    plain = plain_text(text)
    assert plain_text(plain) == plain
    assert len(plain.splitlines()) <= 1
    assert plain.replace("\N{ZERO WIDTH NON-JOINER}", "").replace("\N{ZERO WIDTH JOINER}", "").isprintable()
