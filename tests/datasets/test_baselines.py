"""What needs no model: on hand-made moments, and on BDD-X's real texts where they are at hand."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from pathlib import Path

import pytest
from roadside.datasets.baselines import (
    CONSTANT,
    FREQUENT_WORDS,
    Nearest,
    constant,
    human_pairs,
    narrator,
    telemetry_rule,
)
from roadside.datasets.bddx import Row, Segment, read_annotations
from roadside.datasets.caption_metrics import caption_scores
from roadside.datasets.caption_table import score_row
from roadside.datasets.meteor import Meteor
from roadside.datasets.motion_metrics import Motion, forecast, motion_scores
from roadside.datasets.references import Reference, rag_driver_references
from roadside.datasets.signals import ACCELERATION_MPS2, SPEED_KMH, YAW_RATE_DEG_S

SHARED = Path(__file__).parents[3] / "shared" / "data"
WITHOUT_TEXTS = "BDD-X's real texts are not beside the repository (../shared/data): published baselines are unchecked"
WITHOUT_METEOR = "pycocoevalcap or Java is not installed: METEOR is unchecked"
CAN_METEOR = importlib.util.find_spec("pycocoevalcap") is not None and shutil.which("java") is not None


def moment(speed_kmh: float, acceleration: float | None = None, yaw_rate: float = 0.0, words: str = "") -> Reference:
    telemetry = {SPEED_KMH: speed_kmh, YAW_RATE_DEG_S: yaw_rate}
    if acceleration is not None:
        telemetry[ACCELERATION_MPS2] = acceleration
    return Reference("x", Segment(0, 1, words, f"because of {words}"), telemetry, telemetry)


@pytest.mark.parametrize(
    ("reference", "action"),
    [
        (moment(0.0), "stopped"),
        (moment(5.0), "slows"),
        (moment(50.0), "keeps"),
        (moment(50.0, -2.0), "slows"),
        (moment(50.0, 2.0), "accelerates"),
        (moment(30.0, 0.0, 9.0), "steers-right"),
        (moment(30.0, 0.0, -9.0), "steers-left"),
        (Reference("x", Segment(0, 1, "", "")), "keeps"),
    ],
)
def test_the_telemetry_rule(reference, action):
    said = telemetry_rule(reference)
    assert (said.action, said.justification) == FREQUENT_WORDS[action]


def test_the_narrator_gives_no_reason():
    said = narrator(moment(50.0, -2.0))
    assert (said.action, said.justification) == ("the car slows down .", "")
    assert (said.classes.action, said.classes.justification) == ("slows", None)


def test_nearest_says_what_was_said_of_the_most_similar_moment():
    nearest = Nearest([moment(0, 0, 0, "standing"), moment(90, 0, 0, "speeding"), moment(40, -3, 0, "braking")])
    assert nearest(moment(80, 0.1)).action == "speeding"
    assert nearest(moment(45, -2.5)).justification == "because of braking"
    # Without acceleration nothing can be compared.
    assert nearest(moment(80)) == constant(moment(80))
    assert Nearest([moment(80)]).moments == []


def test_people_are_paired_where_they_mean_the_same_stretch():
    first = Row("1_a", "a", "train", (Segment(0, 10, "A1", "r1"), Segment(10, 20, "A2", "r2")))
    second = Row(
        "2_a", "a", "train", (Segment(0, 8, "B1", "s1"), Segment(8, 10, "B2", "s2"), Segment(11, 20, "B3", "s3"))
    )
    other = Row("3_b", "b", "train", (Segment(0, 10, "C1", "t1"),))
    pairs = human_pairs([first, second, other])
    assert [(said.action, true.action) for said, true in pairs] == [("B1", "A1"), ("B3", "A2")]
    assert [(said.justification, true.justification) for said, true in pairs] == [("s1", "r1"), ("s3", "r2")]


def test_a_forecast_carries_half_of_the_change_on():
    assert forecast({SPEED_KMH: 36.0, ACCELERATION_MPS2: -2.0}) == Motion(9.0, 0.0)
    assert forecast({SPEED_KMH: 1.8, ACCELERATION_MPS2: -2.0}) == Motion(0.0, 0.0)
    assert forecast({}) == Motion(None, 0.0)


def test_motion_scores_by_hand():
    said = [Motion(10.0, 0.0), Motion(5.0, 0.0), Motion(None, 0.0)]
    true = [Motion(10.3, 3.0), Motion(1.0, None), Motion(7.0, -4.0)]
    scores = motion_scores(said, true)
    assert scores["speed_rmse"] == pytest.approx(((0.3**2 + 4.0**2) / 2) ** 0.5)
    assert scores["course_rmse"] == pytest.approx(((9 + 16) / 2) ** 0.5)
    assert scores["speed_a_delta"] == {"0.1": 0.0, "0.5": 0.5, "1.0": 0.5, "5.0": 1.0, "10.0": 1.0}
    assert scores["course_a_delta"] == {"0.1": 0.0, "0.5": 0.0, "1.0": 0.0, "5.0": 1.0, "10.0": 1.0}
    assert motion_scores([Motion()], [Motion(1.0, 2.0)]) == {}


@pytest.fixture(scope="module")
def real_references() -> list[Reference]:
    if not (SHARED / "ragdriver").is_dir():
        pytest.skip(WITHOUT_TEXTS)
    return rag_driver_references(SHARED / "ragdriver")


@pytest.fixture(scope="module")
def real_rows() -> tuple[Row, ...]:
    if not (SHARED / "bddx").is_dir():
        pytest.skip(WITHOUT_TEXTS)
    return read_annotations(SHARED / "bddx" / "BDD-X-Annotations_v1.csv").rows


def real_row(name: str, baseline, references: list[Reference]) -> dict:
    return score_row(name, [baseline(each) for each in references], [each.caption for each in references])


def test_the_constant_on_bddx_s_test_captions(real_references):
    row = real_row("constant", constant, real_references)
    assert row["n"] == 2123
    assert row["bleu4_action"] == pytest.approx(22.4, abs=0.1)
    assert row["cider_action"] == pytest.approx(111.3, abs=0.1)


def test_what_telemetry_alone_says_on_bddx_s_test_captions(real_references):
    """Above the 26.4/193.7 that another such rule is known to reach, and above every word that ignores telemetry."""
    row = real_row("telemetry-rule", telemetry_rule, real_references)
    assert row["bleu4_action"] == pytest.approx(30.1, abs=0.3)
    assert row["cider_action"] == pytest.approx(202.2, abs=0.3)
    assert row["bleu4_justification"] == pytest.approx(4.4, abs=0.3)
    assert row["action_accuracy"] > 0.5 > 2 * real_row("constant", constant, real_references)["action_accuracy"]


def test_going_straight_on_is_the_course_to_beat(real_references):
    motions = [forecast(reference.known) for reference in real_references]
    scores = motion_scores(motions, [reference.next_motion for reference in real_references])
    assert scores["course_rmse"] == pytest.approx(4.20, abs=0.005)
    assert "speed_rmse" not in scores, "the motion before is not published, so a forecast of the speed would be a leak"


def test_the_parser_s_limits_on_real_sentences(real_references):
    row = real_row("constant", constant, real_references)
    assert 0.8 < row["action_judged"] < 1
    assert 0.6 < row["justification_judged"] < 1


def test_people_against_people_on_bddx(real_rows):
    pairs = human_pairs(real_rows)
    row = score_row("human", [one for one, _ in pairs], [other for _, other in pairs])
    assert len(pairs) == 2098
    assert row["bleu4_action"] == pytest.approx(17.8, abs=0.3)
    assert row["cider_action"] == pytest.approx(139.1, abs=0.5)
    assert row["bleu4_justification"] == pytest.approx(10.1, abs=0.3)
    assert row["cider_justification"] == pytest.approx(96.2, abs=0.3)


def test_the_rule_s_words_are_frequent_in_the_training_split(real_rows):
    def plain(text: str) -> str:
        return text.lower().strip(" .")

    segments = [segment for row in real_rows if row.split == "train" for segment in row.segments]
    actions = Counter(plain(segment.action) for segment in segments)
    reasons = Counter(plain(segment.justification) for segment in segments)
    for action, reason in FREQUENT_WORDS.values():
        assert actions[plain(action)] >= 100
        assert reasons[plain(reason)] >= 50
    assert actions.most_common(1)[0][0] == plain(CONSTANT[0])
    assert reasons.most_common(1)[0][0] == plain(CONSTANT[1])


@pytest.mark.skipif(not CAN_METEOR, reason=WITHOUT_METEOR)
def test_meteor_of_the_constant(real_references):
    with Meteor() as meteor:
        score = meteor.score([CONSTANT[0]] * len(real_references), [[each.segment.action] for each in real_references])
    assert score == pytest.approx(23.7, abs=0.1)


@pytest.mark.skipif(
    not CAN_METEOR, reason="pycocoevalcap or Java is not installed: the Treebank's own tokens are unchecked"
)
def test_the_treebank_s_own_tokens_score_the_same(real_references):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # pyright: ignore[reportMissingImports]

    for part in ("action", "justification"):
        captions = [getattr(each.segment, part) for each in real_references]
        treebank = PTBTokenizer().tokenize({index: [{"caption": each}] for index, each in enumerate(captions)})
        theirs = [treebank[index][0] for index in range(len(captions))]
        said = [captions[0]] * len(captions)
        ours_scores = caption_scores(said, [[each] for each in captions])
        their_scores = caption_scores(said, [[each] for each in theirs])
        assert ours_scores.bleu4 == pytest.approx(their_scores.bleu4, abs=0.1)
        assert ours_scores.cider == pytest.approx(their_scores.cider, abs=0.1)
