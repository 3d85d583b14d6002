"""BLEU-4, CIDEr-D and ROUGE-L: against values worked out by hand, against their own laws, and against COCO's code."""

from __future__ import annotations

import importlib.util
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.datasets.caption_metrics import bleu4, caption_scores, cider_d, rouge_l
from roadside.datasets.caption_tokens import tokens

WITHOUT_COCO = importlib.util.find_spec("pycocoevalcap") is None

words = st.sampled_from(
    ["the", "a", "car", "stops", "slows", "down", "at", "red", "light", "because", "turns", "left", "it", "is"]
)
sentences = st.lists(words, max_size=12)
long_sentences = st.lists(words, min_size=4, max_size=12)
any_text = st.text(max_size=40)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The car is stopped.", "the car is stopped"),
        ("because it's clear, and the driver can't turn", "because it 's clear and the driver ca n't turn"),
        ("The cars' lights aren’t on!", "the cars lights are n't on"),
        ("a right-hand turn; 4-way stop", "a right-hand turn 4-way stop"),
        ("at 5 p.m. on 2.5 miles", "at 5 p.m. on 2.5 miles"),
        ("it cannot go", "it can not go"),
        ("dog/cat crossing", "dog/cat crossing"),
        ("Straße überqueren – 左折", "straße überqueren 左折"),
        ("(slowly) ... \"now\" 'here'", "slowly now here"),
        ("  ", ""),
        ("...", ""),
    ],
)
def test_tokens(caption, expected):
    assert tokens(caption) == expected.split()


@given(any_text)
def test_tokens_of_anything_are_lower_case_words(text):
    for token in tokens(text):
        assert token
        assert token == token.lower()
        assert not any(character.isspace() for character in token)


def test_bleu_by_hand():
    said = [tokens("the car stops at the light")]
    true = [[tokens("the car stops near the light")]]
    # Matches of 6, 5, 4 and 3 n-grams: 5 words, 3 pairs, 1 triple, no four.
    expected = (5 / 6 * 3 / 5 * 1 / 4 * 1e-15 / 3) ** (1 / 4)
    assert bleu4(said, true) == pytest.approx(expected, rel=1e-6)


def test_bleu_s_brevity_penalty_takes_the_closest_reference():
    said = [tokens("the car slows down")]
    true = [tokens("the car slows down for it"), tokens("the car slows down for a very long while")]
    assert bleu4(said, [true]) == pytest.approx(math.exp(1 - 6 / 4), rel=1e-6)


def test_rouge_by_hand():
    # The common subsequence is "the car at light": 4 of 5 words said, 4 of 6 words true.
    precision, recall = 4 / 5, 4 / 6
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([tokens("the car stops at light")], [[tokens("the red car waits at light")]]) == pytest.approx(
        expected
    )


def test_cider_by_hand():
    """Two captions of one word each: a unigram in one of two documents weighs log 2, and only one order counts."""
    assert cider_d([["stop"], ["go"]], [[["stop"]], [["go"]]]) == pytest.approx(10 / 4)
    assert cider_d([["go"], ["go"]], [[["stop"]], [["go"]]]) == pytest.approx(10 / 8)


def test_cider_weighs_rare_words_more():
    true = [[["stops", "swerves"]], [["stops"]], [["goes"]]]
    common, rare = cider_d([["stops"], [], []], true), cider_d([["swerves"], [], []], true)
    assert rare > common > 0


@given(st.lists(long_sentences, min_size=1, max_size=6))
def test_identical_corpora_are_perfect(corpus):
    references = [[each] for each in corpus]
    assert bleu4(corpus, references) == pytest.approx(1.0, abs=1e-6)
    assert rouge_l(corpus, references) == pytest.approx(1.0)


@given(st.lists(long_sentences, min_size=2, max_size=6, unique_by=tuple))
def test_cider_is_highest_for_the_reference_itself(corpus):
    references = [[each] for each in corpus]
    assert cider_d(corpus, references) + 1e-9 >= cider_d(corpus[1:] + corpus[:1], references)
    assert cider_d(corpus, references) <= 10 + 1e-9


@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_a_corpus_does_not_matter(pairs, shuffle):
    mixed = list(pairs)
    shuffle.shuffle(mixed)
    for metric in (bleu4, cider_d, rouge_l):
        one, other = (metric([said for said, _ in each], [[true] for _, true in each]) for each in (pairs, mixed))
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


@given(st.lists(st.tuples(any_text, any_text), min_size=1, max_size=6))
def test_scores_of_any_text_are_in_their_range(pairs):
    scores = caption_scores([said for said, _ in pairs], [[true] for _, true in pairs])
    assert 0 <= scores.bleu4 <= 100 + 1e-6
    assert 0 <= scores.rouge_l <= 100 + 1e-6
    assert 0 <= scores.cider <= 1000 + 1e-6


@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=2)), min_size=1, max_size=6), sentences)
def test_one_more_reference_never_lowers_rouge(pairs, more):
    said, true = [each for each, _ in pairs], [each for _, each in pairs]
    assert rouge_l(said, [[*each, more] for each in true]) >= rouge_l(said, true) - 1e-12


def test_silence_scores_nothing():
    scores = caption_scores(["", ""], [["the car stops"], ["the car goes"]])
    assert (scores.bleu4, scores.cider, scores.rouge_l) == (0.0, 0.0, 0.0)


def test_single_words_count_as_with_coco_s_scorer():
    """There is no run of four words to match, so BLEU-4 is all but 0; CIDEr and ROUGE-L see that they are right."""
    scores = caption_scores(["stop", "go"], [["stop"], ["go"]])
    assert scores.bleu4 < 0.01
    assert scores.rouge_l == pytest.approx(100.0)
    assert scores.cider == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("candidates", "references", "says"),
    [
        (["a"], [["a"], ["b"]], "1 captions cannot be scored against references for 2"),
        ([], [], "no caption"),
        (["a"], [[]], "without a reference"),
    ],
)
def test_what_cannot_be_scored_is_refused(candidates, references, says):
    with pytest.raises(ValueError, match=says):
        caption_scores(candidates, references)


@pytest.mark.skipif(WITHOUT_COCO, reason="pycocoevalcap (COCO's own scorers) is not installed: nothing to compare with")
def test_coco_s_own_scorers_agree():
    from pycocoevalcap.bleu.bleu import Bleu  # pyright: ignore[reportMissingImports]
    from pycocoevalcap.cider.cider import Cider  # pyright: ignore[reportMissingImports]
    from pycocoevalcap.rouge.rouge import Rouge  # pyright: ignore[reportMissingImports]

    rng = random.Random(3)
    vocabulary = [
        "the",
        "car",
        "stops",
        "slows",
        "at",
        "a",
        "red",
        "light",
        "because",
        "it",
        "is",
        "clear",
        "turns",
        "left",
        ".",
    ]

    def sentence() -> list[str]:
        return [rng.choice(vocabulary) for _ in range(rng.randint(1, 14))]

    said = [sentence() for _ in range(200)]
    true = [[sentence() for _ in range(rng.randint(1, 3))] for _ in range(200)]
    for each, references in zip(said[:60], true, strict=False):
        references[0] = each[: rng.randint(1, len(each))] + references[0]
    res = {index: [" ".join(each)] for index, each in enumerate(said)}
    gts = {index: [" ".join(each) for each in several] for index, several in enumerate(true)}
    assert bleu4(said, true) == pytest.approx(Bleu(4).compute_score(gts, res, verbose=0)[0][3], rel=1e-9)
    assert cider_d(said, true) == pytest.approx(Cider().compute_score(gts, res)[0], rel=1e-9)
    assert rouge_l(said, true) == pytest.approx(Rouge().compute_score(gts, res)[0], rel=1e-9)
