"""Classes of free text by keywords: what people wrote about real drives, and what other models answer.

The rules are ordered and the first that matches wins; a text that none matches has no class, and is not judged.
They were written against the wordings that are frequent in BDD-X.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_OTHER_TRAFFIC = r"(traffic|cars?|vehicles?|trucks?|bus|buses|vans?|suv|line)"
_CONNECTIVE = r"(because|since|as|due to|so that|for|at)"

_ACTION_RULES: tuple[tuple[str, str], ...] = (
    ("changes-left", r"\bmerg\w+\b.*\bleft\b|\bleft lane\b|\b(chang\w+|switch\w+|shift\w*) lanes?\b.*\bleft\b"),
    ("changes-right", r"\bmerg\w+\b.*\bright\b|\bright lane\b|\b(chang\w+|switch\w+|shift\w*) lanes?\b.*\bright\b"),
    ("turns-left", r"\bturn\w*\b.*\bleft\b|\bleft (hand )?turn"),
    ("turns-right", r"\bturn\w*\b.*\bright\b|\bright (hand )?turn"),
    ("steers-left", r"\b(steer|bear|curv|veer|bend)\w*\b.*\bleft\b|\bleft (hand )?(curve|bend)"),
    ("steers-right", r"\b(steer|bear|curv|veer|bend)\w*\b.*\bright\b|\bright (hand )?(curve|bend)"),
    ("slows", r"\b(slow(s|ed|ing)|(to|and) slow|brak\w+|decelerat\w+|stopping)\b"),
    ("slows", r"\bcom(es|ing) to a \w* ?stop\b|\breduc\w+ (its )?speed"),
    ("stopped", r"\b(stopped|stops|stationary|parked|idle|idling|waits|waiting)\b|\b(stand|sit)(s|ing) still\b"),
    ("stopped", r"(\bnot|n't) moving\b|\bremains? (still|stopped)\b|\bat a (full |complete )?stop\b"),
    ("accelerates", r"\b(accelerat\w+|speeds? up|speeding up|picks up speed|(gain|increas)\w+ (its )?speed)\b"),
    ("keeps", r"\b(maintain\w*|keep(s|ing)?|constant|steady|continu\w+)\b"),
    ("keeps", r"\b(driv(es|ing)|head(s|ing)|proceed\w*|travel\w*|mov(es|ing)|go(es|ing)) (\w+ )?"
              r"(forward|ahead|straight|down|along|through|on|slowly|quickly|fast)\b"),
    ("keeps", r"\b(driving|moving)$"),
)  # fmt: skip

_JUSTIFICATION_RULES: tuple[tuple[str, str], ...] = (
    ("red-light", r"\bred\b(?! (car|truck|van|bus|suv))|\b(light|signal)\b.*\b(yellow|orange|amber)\b"),
    ("green-light", r"\bgreen\b"),
    ("stop-sign", r"\bstop ?signs?\b"),
    ("road-closed", r"\broad\b.*\b(closed|blocked)\b|\bbarriers?\b|\bdetour\b"),
    ("construction", r"\b(construction|roadworks?|cones?|road crew)\b"),
    ("lane-ends", r"\blane\b.*\b(ends?|ending|merges)\b"),
    ("turn-lane", r"\barrow\b|\bturn(ing)?( only)? lane\b|\blane\b.*\bturns?\b"),
    ("cyclist", r"\b(cyclists?|bicycl\w+|bikers?|bikes?)\b.*\bcross\w*\b"),
    ("cyclist-ahead", r"\b(cyclists?|bicycl\w+|bikers?|bikes?)\b"),
    ("parked", r"\b(double )?parked\b|\bhazard lights\b"),
    ("oncoming", rf"\boncoming\b.*\b{_OTHER_TRAFFIC}\b|\bover the (centre |center )?line\b"),
    ("cut-in", r"\bcut(s|ting)? in\b|\bpull(s|ed|ing)? (in|out)\b.*\b(ahead|front)\b|\bmerg\w+ in front\b"),
    ("pedestrian", r"\b(pedestrians?|person|persons|people|someone|man|woman|walker)\b"),
    ("clear-road", r"\b(clear|empty|unobstructed|free of|is open)\b|\bno\b.*\b(obstruct\w*|obstacles?)\b"),
    ("clear-road", r"\bnothing\b.*\b(way|ahead|front|block\w*|imped\w*|stop\w*)\b"),
    ("clear-road", rf"\b(no|aren't any|not any)\b.*\b{_OTHER_TRAFFIC}\b"),
    ("jam", r"\bjam(med)?\b|\b(stop and go|bumper to bumper|congested|congestion)\b"),
    ("slow-vehicle", rf"\bslow(er|ly)?\b(?! traffic).*\b{_OTHER_TRAFFIC}\b|\b{_OTHER_TRAFFIC}\b.*\bis slow(er)?\b"),
    ("following", r"\bfollow\w*\b|\bsame (speed|pace)\b|\bkeep\w* up with\b|\bflow\w*\b|\bsmoothly\b"),
    ("following", rf"\b{_OTHER_TRAFFIC}\b.*\b(steady|steadily|constant|good) ?(speed|pace|rate)?\b"),
    ("lead-brakes", rf"\b{_OTHER_TRAFFIC}\b.*\b(stop\w*|brak\w+|slow\w*|heavy|backed up)\b"),
    ("lead-brakes", r"\bbrake lights?\b|\b(heavy|stopped|slow|slowed) traffic\b|\btraffic ahead\b"),
    ("lead-moves", rf"\b{_OTHER_TRAFFIC}\b.*\b(mov\w+|pull\w* away|accelerat\w+|proceed\w*|go(es|ing)?|start\w*)\b"),
    ("curve", r"\b(road|street|lane|highway|it)\b.*\b(curv\w+|bends?|winds?)\b|\b(curve|bend)\b"),
)


def action_class(clause: str) -> str | None:
    """The action class that a lower-case clause names first."""
    return _first_match(_ACTION_RULES, clause)


def justification_class(clause: str) -> str | None:
    """The justification class that a lower-case clause names first."""
    return _first_match(_JUSTIFICATION_RULES, clause)


def split_at_connective(text: str) -> tuple[str, bool, str]:
    """(before, found, after) around the first word that introduces a reason; a reason may also open the text."""
    match = re.search(rf"\b{_CONNECTIVE}\b", text)
    if match is None:
        return text, False, ""
    return text[: match.start()], True, text[match.end() :]


def without_connective(clause: str) -> str:
    """The clause without an introducing "because", "since" ...: BDD-X's justifications mostly start with one."""
    return re.sub(rf"^{_CONNECTIVE}\b ?", "", clause)


def is_about_own_car(clause: str) -> bool:
    """True where the subject is the car itself, not the one ahead."""
    subject = r"^\W*((the|our|my|this) )?(ego ?)?(car|vehicle|driver|it|we|i)\b"
    return re.match(rf"{subject}(?! (ahead|in front|in the|before))", clause) is not None


def first_word(clause: str, choices: Sequence[str]) -> str | None:
    """The first of the choices that the clause says, in singular or plural."""
    match = re.search(rf"\b({'|'.join(choices)})(s|es)?\b", clause)
    return match.group(1) if match else None


def _first_match(rules: tuple[tuple[str, str], ...], clause: str) -> str | None:
    for name, pattern in rules:
        if re.search(pattern, clause):
            return name
    return None
