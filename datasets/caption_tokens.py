"""Words of a caption as the field's scorer counts them: the Penn Treebank's tokens in lower case, no punctuation.

The COCO caption evaluation runs Stanford's PTBTokenizer, in Java, and drops punctuation from what it gives. The rules
here are those that English captions meet: contractions come apart ("can't" is "ca" and "n't"), hyphenated words, file
names, numbers and abbreviations stay whole. On BDD-X's test captions the scores agree with that tokenizer's.
"""

from __future__ import annotations

import re

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'"})
# What the Treebank writes as two words.
_FUSED = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}
# Full stops that belong to the word before them.
_ABBREVIATION = r"(?:[^\W\d_]\.)+[^\W\d_]\.?|(?:mr|mrs|ms|dr|st|ave|blvd|rd|hwy|vs|etc|jr|sr|approx)\.(?=\s+\S)"
_TOKEN = re.compile(
    rf"""
    \$?\d+(?:[.,:]\d+)*(?:st|nd|rd|th)?\b(?:-\w+)*       # 35, 1,000, 2.5, 10:30, 2nd, 4-way
    | {_ABBREVIATION}
    | [^\W\d_]\w*?(?=n't\b) | n't\b                      # did | n't
    | '(?:s|m|d|re|ve|ll)\b                              # car | 's
    | [\w]+(?:[-&/.]\w+)*                                # right-hand, and/or
    | [%$&#@*+=<>~^|\\/]
    """,
    re.VERBOSE,
)


def tokens(caption: str) -> list[str]:
    """The caption's words in order; none where it has none. Punctuation is no word."""
    found: list[str] = []
    for token in _TOKEN.findall(caption.lower().translate(_APOSTROPHES)):
        found.extend(_FUSED.get(token, (token,)))
    return found
