"""BLEU-4, CIDEr-D and ROUGE-L of captions as the COCO caption evaluation defines them, which the field reports.

Each is a number of a whole corpus of candidates beside their references, one list of references for each candidate.
They compare words: a right answer in other words scores low, and a wrong one in the usual words high, which is why
none of them stands here without the baselines that need no model (baselines.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from .caption_tokens import tokens

LONGEST_NGRAM = 4
# Of the COCO scorers: they keep a corpus without a single four-word match from having no logarithm.
_BLEU_MATCHES_MORE = 1e-15
_BLEU_GUESSES_MORE = 1e-9
_CIDER_SIGMA = 6.0
_CIDER_SCALE = 10.0
# ROUGE-L counts recall more than precision by this factor squared.
_ROUGE_BETA = 1.2

Words = Sequence[str]
Ngrams = Counter[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """As the field prints them, times 100; CIDEr-D may exceed 100 and reaches 1,000 at most."""

    bleu4: float
    cider: float
    rouge_l: float


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores of a corpus of captions, tokenised here. references: one or more for each candidate.

    Raises ValueError where the two differ in length, a candidate has no reference, or there is none at all.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions cannot be scored against references for {len(references)}")
    if not candidates:
        raise ValueError("there is no caption to score")
    if not all(references):
        raise ValueError("a caption without a reference cannot be scored")
    said = [tokens(caption) for caption in candidates]
    true = [[tokens(reference) for reference in each] for each in references]
    return CaptionScores(100 * bleu4(said, true), 100 * cider_d(said, true), 100 * rouge_l(said, true))


def bleu4(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Corpus BLEU-4 (Papineni et al., 2002), from 0 to 1; a candidate's length is held against its closest reference.

    A corpus in which no caption has four words scores near 0 even where all are right, as it does with COCO's scorer.
    """
    matches, guesses = [0] * LONGEST_NGRAM, [0] * LONGEST_NGRAM
    candidate_length = reference_length = 0
    for said, true in zip(candidates, references, strict=True):
        candidate_length += len(said)
        reference_length += min((len(each) for each in true), key=lambda length: (abs(length - len(said)), length))
        for order in range(1, LONGEST_NGRAM + 1):
            said_ngrams = _ngrams(said, order)
            most: Ngrams = Counter()
            for each in true:
                most |= _ngrams(each, order)
            guesses[order - 1] += max(0, len(said) - order + 1)
            matches[order - 1] += sum((said_ngrams & most).values())
    logarithms = [
        math.log((matched + _BLEU_MATCHES_MORE) / (guessed + _BLEU_GUESSES_MORE))
        for matched, guessed in zip(matches, guesses, strict=True)
    ]
    return _brevity_penalty(candidate_length, reference_length) * math.exp(sum(logarithms) / LONGEST_NGRAM)


def _brevity_penalty(candidate_length: int, reference_length: int) -> float:
    if candidate_length >= reference_length:
        return 1.0
    return math.exp(1.0 - reference_length / candidate_length) if candidate_length else 0.0


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Corpus CIDEr-D (Vedantam et al., 2015), from 0 to 10; 1 is printed as 100.

    Rare n-grams weigh more: their document frequencies are those of the references given here. So the score of one
    corpus says nothing beside that of another, and a single caption scores 0 whatever it says.
    """
    frequencies: Ngrams = Counter()
    for true in references:
        frequencies.update(set(chain.from_iterable(_all_ngrams(each) for each in true)))
    log_corpus = math.log(len(references)) if references else 0.0
    total = 0.0
    for said, true in zip(candidates, references, strict=True):
        said_vector = _Weights.of(said, frequencies, log_corpus)
        similarities = [said_vector.similarity(_Weights.of(each, frequencies, log_corpus)) for each in true]
        total += _CIDER_SCALE * sum(similarities) / len(similarities)
    return total / len(candidates)


@dataclass(frozen=True, slots=True)
class _Weights:
    """A caption as term frequency times inverse document frequency of its n-grams, an order apiece.

    bigrams: the caption's length as COCO's scorer counts it.
    """

    by_order: tuple[dict[tuple[str, ...], float], ...]
    norms: tuple[float, ...]
    bigrams: int

    @classmethod
    def of(cls, words: Words, frequencies: Ngrams, log_corpus: float) -> _Weights:
        by_order = tuple(
            {
                ngram: count * (log_corpus - math.log(max(1, frequencies[ngram])))
                for ngram, count in _ngrams(words, order).items()
            }
            for order in range(1, LONGEST_NGRAM + 1)
        )
        norms = tuple(math.sqrt(sum(weight * weight for weight in each.values())) for each in by_order)
        return cls(by_order, norms, max(0, len(words) - 1))

    def similarity(self, reference: _Weights) -> float:
        """Mean over the orders of the clipped cosine, lowered where the two differ in length."""
        length_penalty = math.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * _CIDER_SIGMA**2))
        cosines = 0.0
        for said, true, said_norm, true_norm in zip(
            self.by_order, reference.by_order, self.norms, reference.norms, strict=True
        ):
            if said_norm and true_norm:
                shared = sum(min(weight, true[ngram]) * true[ngram] for ngram, weight in said.items() if ngram in true)
                cosines += shared / (said_norm * true_norm)
        return length_penalty * cosines / LONGEST_NGRAM


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Mean ROUGE-L (Lin, 2004), from 0 to 1: an F-score of the longest common subsequence, best over references."""
    return sum(_rouge_l(said, true) for said, true in zip(candidates, references, strict=True)) / len(candidates)


def _rouge_l(said: Words, true: Sequence[Words]) -> float:
    common = [_longest_common_subsequence(said, each) for each in true]
    precision = max(common) / len(said) if said else 0.0
    recall = max(length / len(each) if each else 0.0 for length, each in zip(common, true, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _longest_common_subsequence(one: Words, other: Words) -> int:
    lengths = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for index, other_word in enumerate(other, start=1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if word == other_word else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1]


def _ngrams(words: Words, order: int) -> Ngrams:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _all_ngrams(words: Words) -> chain[tuple[str, ...]]:
    return chain.from_iterable(_ngrams(words, order) for order in range(1, LONGEST_NGRAM + 1))
