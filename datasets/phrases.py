"""The closed set of actions and justifications, the words that say them, and the way back from words to classes.

An answer is scored by its classes, never by its string. Each class has several phrasings, and its first one is said
in `DOMINANT_SHARE` of the cases: where wordings compete evenly, a language model is unsure of each word although it
is sure of the meaning, and early exits would ask for help over style.

Rendered sentences are lower case with spaces between all tokens ("the car slows down because the light ahead is
red ."), so that `words()` is a complete vocabulary for a word-level tokenizer.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..bus.kinds import DESCRIBE, KINDS, TaskKind
from . import keywords
from .signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S

DOMINANT_SHARE = 0.85

VEHICLES = ("car", "truck", "bus", "van")
SIDES = ("left", "right")
# What "it is ..." of a scene: the time of day, or the weather of a day.
CONDITIONS = ("day", "dusk", "night", "raining", "foggy")

ACTIONS: dict[str, tuple[str, ...]] = {
    "stopped": ("is stopped", "stands still", "has come to a stop", "waits"),
    "slows": ("slows down", "is slowing down", "brakes", "reduces its speed"),
    "accelerates": ("accelerates", "speeds up", "is gaining speed"),
    "keeps": ("keeps its speed", "drives forward", "continues at a steady speed"),
    "steers-left": ("steers left", "bears left", "keeps to the left"),
    "steers-right": ("steers right", "bears right", "keeps to the right"),
    "changes-left": ("moves to the left lane", "changes lanes to the left", "merges left"),
    "changes-right": ("moves to the right lane", "changes lanes to the right", "merges right"),
    "turns-left": ("turns left", "makes a left turn", "turns off to the left"),
    "turns-right": ("turns right", "makes a right turn", "turns off to the right"),
}

JUSTIFICATIONS: dict[str, tuple[str, ...]] = {
    "red-light": ("the light ahead is red", "the traffic light is red", "the signal has turned red"),
    "green-light": ("the light ahead is green", "the traffic light is green", "the signal has turned green"),
    "stop-sign": ("there is a stop sign", "a stop sign stands at the corner", "it must stop at the stop sign"),
    "lead-brakes": (
        "the brake lights of the {vehicle} ahead are on",
        "the {vehicle} ahead is braking",
        "the {vehicle} in front brakes",
    ),
    "lead-moves": ("the {vehicle} ahead pulls away", "the {vehicle} in front moves on"),
    "following": (
        "the {vehicle} ahead drives at the same speed",
        "it follows the {vehicle} in front",
        "traffic flows steadily behind the {vehicle}",
    ),
    "cut-in": ("a {vehicle} cuts in from the {side}", "a {vehicle} pulls in ahead from the {side}"),
    "jam": ("the traffic ahead is jammed", "it has reached the end of a traffic jam", "every lane ahead is jammed"),
    "slow-vehicle": ("the {vehicle} ahead is slow", "it passes the slow {vehicle} ahead"),
    "oncoming": ("an oncoming {vehicle} is over the line", "an oncoming {vehicle} comes too close"),
    "pedestrian": (
        "a pedestrian is crossing on the {side}",
        "a person walks across the road on the {side}",
        "someone on foot is crossing on the {side}",
    ),
    "cyclist": ("a cyclist is crossing on the {side}", "a bicycle is crossing on the {side}"),
    "cyclist-ahead": ("a cyclist rides ahead in the lane", "it passes a cyclist"),
    "parked": ("a {vehicle} is parked in its lane", "it passes a parked {vehicle}"),
    "construction": ("cones close its lane", "its lane is closed by construction"),
    "lane-ends": ("its lane ends ahead", "its lane comes to an end"),
    "road-closed": ("the road ahead is closed", "a barrier closes the road ahead"),
    "turn-lane": ("the arrow on its lane points {side}", "its lane turns off to the {side}"),
    "curve": ("the road curves to the {side}", "the road bends to the {side}"),
    "clear-road": ("the road ahead is clear", "there is no traffic ahead", "nothing is in the way"),
}

# Every pair that a drive can show; the same telemetry occurs under several justifications on purpose:
# the reason has to be seen.
COMBINATIONS: tuple[tuple[str, str], ...] = (
    *(
        ("slows", justification)
        for justification in (
            "red-light",
            "stop-sign",
            "lead-brakes",
            "cut-in",
            "jam",
            "pedestrian",
            "cyclist",
            "construction",
            "road-closed",
            "turn-lane",
        )
    ),
    *(
        ("stopped", justification)
        for justification in ("red-light", "stop-sign", "lead-brakes", "jam", "pedestrian", "cyclist")
    ),
    *(("accelerates", justification) for justification in ("green-light", "lead-moves", "clear-road")),
    *(("keeps", justification) for justification in ("green-light", "following", "clear-road")),
    *(("steers-left", justification) for justification in ("curve", "parked", "cyclist-ahead")),
    *(("steers-right", justification) for justification in ("curve", "oncoming")),
    *(("changes-left", justification) for justification in ("slow-vehicle", "lane-ends", "construction")),
    *(("changes-right", justification) for justification in ("slow-vehicle", "lane-ends", "construction")),
    *(("turns-left", justification) for justification in ("turn-lane", "road-closed")),
    *(("turns-right", justification) for justification in ("turn-lane", "road-closed")),
)

CONNECTIVES = ("because", "since", "as")

EXTRA_FACTS: dict[str, str] = {
    "ahead": "a {vehicle} is ahead",
    "beside": "a {vehicle} drives on the {side}",
    "oncoming": "a {vehicle} comes the other way",
    "parked": "a {vehicle} is parked on the {side}",
    "bystander": "a person stands on the {side}",
    "none": "no other road user is near",
}

# The largest values that have a word of their own; beyond them the nearest one is said.
MAX_SPEED_MPS = 40
MAX_ACCELERATION_MPS2 = 6.0
MAX_COURSE_DEG_S = 30


@dataclass(frozen=True, slots=True)
class ExtraFact:
    """One more true thing about a scene, besides what the car does and why. fact: a key of EXTRA_FACTS."""

    fact: str
    vehicle: str | None = None
    side: str | None = None

    def sentence(self) -> str:
        return EXTRA_FACTS[self.fact].format(vehicle=self.vehicle, side=self.side)


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """What is true of one moment of a drive; the words are made from this alone.

    vehicle and side fill the justification's slots, and are None where it has none.
    """

    action: str
    justification: str
    vehicle: str | None
    side: str | None
    conditions: str
    extra: ExtraFact


@dataclass(frozen=True, slots=True)
class Parsed:
    """The classes that a text names; None where it names none, or none of the closed set."""

    action: str | None
    justification: str | None
    vehicle: str | None
    side: str | None


def action_clause(action: str, rng: random.Random) -> str:
    """What the car does, without a full stop: "the car slows down"."""
    return f"the car {_choose(ACTIONS[action], rng)}"


def justification_clause(justification: str, vehicle: str | None, side: str | None, rng: random.Random) -> str:
    """A reason that stands alone as well as after "because": "the light ahead is red"."""
    return _choose(JUSTIFICATIONS[justification], rng).format(vehicle=vehicle, side=side)


def sentence(kind: TaskKind, facts: SceneFacts, rng: random.Random) -> str:
    """The right answer to a task of this kind, as a list of sentences that each end in " ."."""
    reason = justification_clause(facts.justification, facts.vehicle, facts.side, rng)
    if "action" not in kind.asks_for:
        return f"{reason} ."
    explained = f"{action_clause(facts.action, rng)} {_choose(CONNECTIVES, rng)} {reason} ."
    if kind.name != DESCRIBE.name:
        return explained
    return f"it is {facts.conditions} . {explained} {facts.extra.sentence()} ."


def telemetry_text(telemetry: Mapping[str, float]) -> str:
    """The prompt's line of telemetry, "speed 12 accel -1.0 course 3": m/s, m/s² to .5, deg/s positive to the right.

    telemetry: VSS names to values (signals.py). A missing signal is "?"; values beyond the vocabulary are clipped.
    """
    speed, acceleration, course = "?", "?", "?"
    if SPEED_KMH in telemetry:
        speed = str(round(min(max(telemetry[SPEED_KMH] / 3.6, 0.0), MAX_SPEED_MPS)))
    if ACCELERATION_MPS2 in telemetry:
        acceleration = _half(telemetry[ACCELERATION_MPS2])
    if YAW_RATE_DEG_S in telemetry:
        course = str(round(min(max(telemetry[YAW_RATE_DEG_S], -MAX_COURSE_DEG_S), MAX_COURSE_DEG_S)))
    return f"speed {speed} accel {acceleration} course {course}"


@cache
def words() -> list[str]:
    """Every word of answers, prompts and telemetry lines, sorted; the vocabulary of a word-level tokenizer."""
    texts = [kind.prompt for kind in KINDS.values()]
    texts += [f"the car {verb} ." for verbs in ACTIONS.values() for verb in verbs]
    texts += _justification_of_clause()
    texts += CONNECTIVES
    texts += [f"it is {conditions} ." for conditions in CONDITIONS]
    texts += [
        ExtraFact(fact, vehicle, side).sentence() for fact in EXTRA_FACTS for vehicle in VEHICLES for side in SIDES
    ]
    texts += ["speed accel course ?"]
    texts += [str(speed) for speed in range(MAX_SPEED_MPS + 1)]
    texts += [_half(step / 2) for step in range(int(-2 * MAX_ACCELERATION_MPS2), int(2 * MAX_ACCELERATION_MPS2) + 1)]
    texts += [str(course) for course in range(-MAX_COURSE_DEG_S, MAX_COURSE_DEG_S + 1)]
    return sorted({word for text in texts for word in text.split()})


def parse(text: str) -> Parsed:
    """The classes in an answer of any kind, or in free text such as BDD-X's own sentences.

    Rendered phrasings are recognised exactly; anything else by keywords (keywords.py), as far as those carry.
    """
    action: str | None = None
    reason: tuple[str | None, str | None, str | None] = (None, None, None)
    for part in re.split(r"[.!?\n]+(?:\s|$)", text.lower()):
        # Some reasons are about the own car too: "it passes a parked truck".
        if not keywords.is_about_own_car(part) or _normalised(part) in _justification_of_clause():
            reason = reason if reason[0] else parse_justification(part)
            continue
        before, connective, after = keywords.split_at_connective(part)
        if connective:
            return Parsed(parse_action(before), *parse_justification(after))
        action_here = parse_action(part)
        action = action or action_here
        if action_here is None and reason[0] is None:
            reason = parse_justification(part)
    return Parsed(action, *reason)


def parse_action(text: str) -> str | None:
    """The action class of a clause such as BDD-X's `action` column, or None."""
    clause = _normalised(text)
    return _action_of_clause().get(clause) or keywords.action_class(clause)


def parse_justification(text: str) -> tuple[str | None, str | None, str | None]:
    """(justification class, vehicle, side) of a clause such as BDD-X's `justification` column; None where unknown."""
    clause = keywords.without_connective(_normalised(text))
    if clause in _justification_of_clause():
        return _justification_of_clause()[clause]
    found = keywords.justification_class(clause)
    slots = "".join(JUSTIFICATIONS[found]) if found else ""
    vehicle = keywords.first_word(clause, VEHICLES) if "{vehicle}" in slots else None
    side = keywords.first_word(clause, SIDES) if "{side}" in slots else None
    return found, vehicle, side


def _choose(phrasings: tuple[str, ...], rng: random.Random) -> str:
    if rng.random() < DOMINANT_SHARE:
        return phrasings[0]
    return rng.choice(phrasings[1:])


def _half(value: float) -> str:
    clipped = min(max(value, -MAX_ACCELERATION_MPS2), MAX_ACCELERATION_MPS2)
    # Adding zero turns -0.0 into 0.0, which has a word.
    return f"{round(2 * clipped) / 2 + 0.0:.1f}"


def _normalised(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' -]", " ", text.lower()).split())


@cache
def _action_of_clause() -> dict[str, str]:
    return {f"the car {verb}": action for action, verbs in ACTIONS.items() for verb in verbs}


@cache
def _justification_of_clause() -> dict[str, tuple[str | None, str | None, str | None]]:
    clauses: dict[str, tuple[str | None, str | None, str | None]] = {}
    for justification, phrasings in JUSTIFICATIONS.items():
        for phrasing, vehicle, side in itertools.product(phrasings, VEHICLES, SIDES):
            slots = (vehicle if "{vehicle}" in phrasing else None, side if "{side}" in phrasing else None)
            clauses[phrasing.format(vehicle=vehicle, side=side)] = (justification, *slots)
    return clauses
