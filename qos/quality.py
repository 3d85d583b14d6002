"""How often a run's answers were right, beside answers that need no model to the very same moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..bus.kinds import KINDS
from ..bus.messages import Outcome
from ..bus.places import PLACES
from .intervals import Interval, share_95
from .log_of_run import LogOfRun
from .report import VISIBLE


@dataclass(frozen=True, slots=True)
class Quality:
    """action, reason: share of the answers asked for it that were right, with its interval; None where none was.

    n: answers that the log can judge. is_baseline: whether it is what somebody without a model would have said.
    """

    name: str
    n: int
    action: Interval | None
    reason: Interval | None
    is_baseline: bool = False


_Verdicts = tuple[bool | None, bool | None]  # action, reason


def qualities(outcomes: Sequence[Outcome], log: LogOfRun) -> tuple[list[Quality], str]:
    """All visible answers that the log can judge, those of each place, and the baselines on all the same moments; and
    why a baseline is missing, or empty."""
    judged = [outcome for outcome in outcomes if outcome.state in VISIBLE and outcome.truth is not None]
    found = [_quality("all answers", [_verdicts(outcome) for outcome in judged])]
    for place in PLACES:
        here = [_verdicts(o) for o in judged if o.place == place and o.state == "result"]
        found.append(_quality(place, here))
    found.append(_quality("fallback", [_verdicts(o) for o in judged if o.state == "fallback"]))
    baselines, missing = _baselines(judged, log)
    return [quality for quality in found if quality.n] + baselines, missing


def _baselines(judged: Sequence[Outcome], log: LogOfRun) -> tuple[list[Quality], str]:
    """The narrator needs each moment's telemetry; the constant answer needs nothing."""
    from ..datasets.baselines import CONSTANT
    from ..datasets.narrator import narrate

    if not judged:
        return [], "the log has no words for any moment that was answered"
    found: list[Quality] = []
    missing = log.problem
    if not missing:
        telemetry = [log.telemetry(outcome) for outcome in judged]
        said = [(o, narrate(each)) for o, each in zip(judged, telemetry, strict=True) if each is not None]
        if len(said) == len(judged):
            found.append(_quality("the vehicle's narrator", [_judged_as(o, text) for o, text in said], baseline=True))
        else:
            missing = f"the log of today does not have {len(judged) - len(said)} of the moments that were answered"
    constant = f"{CONSTANT[0]} {CONSTANT[1]}"
    found.append(_quality("a constant answer", [_judged_as(o, constant) for o in judged], baseline=True))
    return found, missing


def _verdicts(outcome: Outcome) -> _Verdicts:
    assert outcome.truth is not None
    return outcome.truth.action_correct, outcome.truth.justification_correct


def _judged_as(outcome: Outcome, text: str) -> _Verdicts:
    """What the verdict would have been had the answer been `text`; on the parts that the answer was judged on."""
    from ..datasets.bddx import Segment
    from ..datasets.scoring import judge

    truth = outcome.truth
    assert truth is not None
    if outcome.kind not in KINDS:
        return None, None
    verdict = judge(KINDS[outcome.kind], text, Segment(0.0, 1.0, truth.action, truth.justification))
    return verdict.action_correct, verdict.justification_correct


def _quality(name: str, verdicts: Sequence[_Verdicts], *, baseline: bool = False) -> Quality:
    def share(part: Callable[[_Verdicts], bool | None]) -> Interval | None:
        given = [correct for each in verdicts if (correct := part(each)) is not None]
        return share_95(sum(given), len(given))

    action, reason = share(lambda verdict: verdict[0]), share(lambda verdict: verdict[1])
    return Quality(name, len(verdicts), action, reason, baseline)
