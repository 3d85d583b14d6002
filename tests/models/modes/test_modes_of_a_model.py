"""Every mode with a real architecture of random weights, against the other half of the same model."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from roadside.models.answering import CloudAnswerer, EdgeAnswerer, cloud_answerer, edge_answerer
from roadside.models.decoding import Generation, Limits, to_the_end
from roadside.models.exits import WEIGHTS_FILE
from roadside.models.images import colour_card_jpeg
from roadside.models.local_cloud import LocalCloud
from roadside.models.modes import full
from roadside.models.modes.registry import MODES
from roadside.models.modes.sharing import Sharing
from roadside.models.parity import mismatches
from roadside.models.partitions import EncodedPrompt
from roadside.models.questions import Question
from roadside.models.sampling import Sampling
from roadside.models.together import decode_together
from safetensors.torch import load_file, save_file

QUESTION = Question("what is the car doing and why ?", (), {"Vehicle.Speed": 36.0})
LOSSLESS = [name for name, mode in MODES.items() if mode.is_lossless]
SHARINGS = [Sharing(), Sharing("image"), Sharing("image", "tokens"), Sharing(window=3)]
# Around what the random heads are sure of, so that exits speak, ask and are wrong.
MIXED = (0.034, 0.032)
SAMPLED = Sampling(temperature=0.7, seed=5)


class Pair(NamedTuple):
    edge: EdgeAnswerer
    cloud: CloudAnswerer
    prompt: EncodedPrompt

    def limits(self, **settings: Any) -> Limits:
        return Limits(**{"max_tokens": 16, "end_token": -1, "thresholds": MIXED} | settings)

    def whole(self, limits: Limits) -> list[int]:
        return to_the_end(full.decode(self.cloud.whole, self.prompt, limits)).tokens

    def together(
        self, mode: str, limits: Limits, sharing: Sharing = SHARINGS[0], *, float16: bool = False, seed: int = 0
    ) -> Generation:
        cloud = LocalCloud(
            self.cloud.whole,
            end_token=limits.end_token,
            prompt=self.prompt,
            sampling=limits.sampling,
            float16=float16,
        )
        whim = random.Random(seed)
        steps = MODES[mode].decode(self.edge.partition, self.prompt, limits, sharing)
        return decode_together(steps, cloud, answers_when_polled=lambda: whim.random() < 0.5).result


@pytest.fixture(scope="module")
def pair(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("modes") / "agreeing")
    let_exits_agree(folder)
    edge = edge_answerer(str(folder))
    question = Question(QUESTION.prompt, (colour_card_jpeg(),), QUESTION.telemetry)
    return Pair(edge, cloud_answerer(str(folder)), edge.encode(question))


def let_exits_agree(folder: Path) -> None:
    """Give the exits the model's own head, and let the layers behind them change little of what is said."""
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and int(name.split("layers.")[1].split(".")[0]) >= 2:
            weight *= 0.15
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    norm, head = weights["model.text_model.norm.weight"], weights["lm_head.weight"]
    exits = {f"{index}.{part}.weight": weight.clone() for index in (0, 1) for part, weight in ((0, norm), (1, head))}
    save_file(exits, folder / WEIGHTS_FILE)


@pytest.mark.parametrize("sharing", SHARINGS, ids=str)
@pytest.mark.parametrize("mode", LOSSLESS)
def test_lossless_modes_say_what_the_unsplit_model_says(pair: Pair, mode: str, sharing: Sharing) -> None:
    for seed in range(3):
        generation = pair.together(mode, pair.limits(), sharing, seed=seed)
        assert generation.tokens == pair.whole(pair.limits())
        assert set(generation.made_by) == {"full"}


@pytest.mark.parametrize("mode", ["ce", "ce-sync", "ce-optimistic"])
def test_above_one_so_does_ce(pair: Pair, mode: str) -> None:
    never_sure = pair.limits(thresholds=(1.1, 1.1))
    for sharing in SHARINGS:
        assert pair.together(mode, never_sure, sharing).tokens == pair.whole(never_sure)


def test_these_thresholds_let_exits_speak_ask_and_err(pair: Pair) -> None:
    """Else the tests around would show less than they seem to."""
    generation = pair.together("ce", pair.limits())
    assert {"exit1", "full"} <= set(generation.made_by)
    assert mismatches(pair.cloud.whole, pair.prompt, generation.tokens)
    for mode in ("ce-sync", "ce-optimistic"):
        assert pair.together(mode, pair.limits(), seed=2).tokens == generation.tokens


@pytest.mark.parametrize("mode", LOSSLESS)
def test_an_end_token_ends_an_answer(pair: Pair, mode: str) -> None:
    tokens = pair.whole(pair.limits())
    limits = pair.limits(end_token=tokens[6])
    generation = pair.together(mode, limits)
    assert generation.tokens == pair.whole(limits)
    assert generation.tokens[-1] == tokens[6]


@pytest.mark.parametrize("mode", LOSSLESS)
def test_with_shared_noise_they_sample_what_the_unsplit_model_samples(pair: Pair, mode: str) -> None:
    sampled = pair.limits(sampling=SAMPLED)
    assert pair.together(mode, sampled).tokens == pair.whole(sampled)
    assert pair.whole(sampled) != pair.whole(pair.limits())
    assert pair.whole(sampled) != pair.whole(pair.limits(sampling=Sampling(0.7, 6)))


def test_in_float16_only_near_ties_fall_otherwise(pair: Pair) -> None:
    for mode in ("naive-kv", "through"):
        generation = pair.together(mode, pair.limits(), float16=True)
        assert all(each.margin < 0.02 for each in mismatches(pair.cloud.whole, pair.prompt, generation.tokens))


def test_a_wrong_token_is_found_with_its_margin(pair: Pair) -> None:
    tokens = pair.whole(pair.limits())
    assert mismatches(pair.cloud.whole, pair.prompt, tokens) == []
    wrong = [*tokens[:-1], tokens[-1] + 1]
    (found,) = mismatches(pair.cloud.whole, pair.prompt, wrong)
    assert (found.index, found.token, found.expected) == (15, tokens[-1] + 1, tokens[-1])
    assert found.margin > 0
