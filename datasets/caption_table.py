"""The row of a table of scores: captions beside their references, by class, by words and by motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from .caption_metrics import caption_scores
from .captions import Caption
from .meteor import Meteor
from .phrases import Parsed

PARTS = ("action", "justification")
# What a justification is about, besides its class: the vehicle, its side, and whatever else phrases.py parses.
DETAILS = tuple(field.name for field in fields(Parsed) if field.name not in PARTS)
_DIGITS = 4


def score_row(
    name: str, said: Sequence[Caption], true: Sequence[Caption], *, meteor: Meteor | None = None, **more: Any
) -> dict[str, Any]:
    """Scores of captions, each beside the reference of the same index, ready for JSON. more: further columns.

    `*_accuracy`: share of those references that name a class whose class was said; `*_judged`: the share of references
    that do, for the parser (phrases.py) knows a closed set of classes; None where no reference names any.
    `details_accuracy`: share of references with details of which every one was said, and each detail's own.
    `bleu4_*`, `cider_*`, `rouge_l_*`, and `meteor_*` where one is given: times 100, as the field prints them.
    `*_by_class`: n and accuracy of each class.
    Raises ValueError where the two differ in length or are empty.
    """
    row: dict[str, Any] = {"name": name, "n": len(said)}
    for part in PARTS:
        pairs = _judged(part, said, true)
        row[f"{part}_accuracy"] = _share(pairs)
        row[f"{part}_judged"] = round(len(pairs) / len(true), _DIGITS) if true else None
    row.update(_detail_scores(said, true))
    for part in PARTS:
        candidates = [getattr(each, part) for each in said]
        references = [[getattr(each, part)] for each in true]
        words = asdict(caption_scores(candidates, references))
        if meteor is not None:
            words["meteor"] = meteor.score(candidates, references)
        row.update({f"{metric}_{part}": round(value, 2) for metric, value in words.items()})
    for part in PARTS:
        row[f"{part}_by_class"] = _by_class(_judged(part, said, true))
    return row | {key: _rounded(value) for key, value in more.items()}


def columns_of(part: str) -> tuple[str, ...]:
    """The keys of a row that tell how well one part was said."""
    return (
        f"{part}_accuracy",
        f"bleu4_{part}",
        f"cider_{part}",
        f"rouge_l_{part}",
        f"meteor_{part}",
        f"{part}_by_class",
    )


def _judged(part: str, said: Sequence[Caption], true: Sequence[Caption]) -> list[tuple[str | None, str]]:
    """(class said, true class) wherever the reference names one."""
    both = [(getattr(one.classes, part), getattr(other.classes, part)) for one, other in zip(said, true, strict=True)]
    return [(spoken, is_so) for spoken, is_so in both if is_so is not None]


def _detail_scores(said: Sequence[Caption], true: Sequence[Caption]) -> dict[str, float | None]:
    """Empty where no reference has a detail."""
    pairs = {detail: _judged(detail, said, true) for detail in DETAILS}
    if not any(pairs.values()):
        return {}
    whole = [
        all(_detail(one, detail) == wanted for detail in DETAILS if (wanted := _detail(other, detail)) is not None)
        for one, other in zip(said, true, strict=True)
        if any(_detail(other, detail) is not None for detail in DETAILS)
    ]
    own = {f"{detail}_accuracy": _share(found) for detail, found in pairs.items() if found}
    return {"details_accuracy": round(sum(whole) / len(whole), _DIGITS)} | own


def _detail(caption: Caption, detail: str) -> str | None:
    return getattr(caption.classes, detail)


def _by_class(pairs: Sequence[tuple[str | None, str]]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[tuple[str | None, str]]] = {}
    for pair in pairs:
        found.setdefault(pair[1], []).append(pair)
    return {name: {"n": len(found[name]), "accuracy": _share(found[name])} for name in sorted(found)}


def _share(pairs: Sequence[tuple[str | None, str]]) -> float | None:
    """Of pairs whose two are the same; None of none."""
    return round(sum(said == is_so for said, is_so in pairs) / len(pairs), _DIGITS) if pairs else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value
