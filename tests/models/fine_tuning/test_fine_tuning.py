"""Fine-tuning from the log to the finished folder: it learns, goes on where it was killed, and is served."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.progress import Progress
from roadside.bus.errors import ConfigurationError, LogError, ModelError
from roadside.bus.kinds import EXPLAIN, KINDS
from roadside.models import checkpoints, fine_tuning
from roadside.models.answering import any_cloud_answerer, edge_answerer
from roadside.models.fine_tuning import FineTuning, fine_tune
from roadside.models.fine_tuning_options import FineTuningOptions
from roadside.models.questions import Question, answer_at_once
from safetensors.torch import load_file
from typer.testing import CliRunner

# Rates at which models of this size learn something within seconds.
QUICK = FineTuningOptions(
    passes=4,
    batch_size=4,
    learning_rate=1e-2,
    exit_learning_rate=1e-2,
    rank=4,
    validate_every=5,
    checkpoint_every=3,
    held_out_moments=6,
    served_moments=1,
)


def quietly(
    model: Path | None, log: Path, out: Path, options: FineTuningOptions = QUICK, **how: Any
) -> tuple[dict[str, Any], list[str]]:
    """The card, and what the user was told."""
    warnings: list[str] = []
    name = None if model is None else str(model)
    card = fine_tune(
        name, log, out, options, device="cpu", warn=warnings.append, progress=Progress(disable=True), **how
    )
    return card, warnings


def before_and_best(card: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """The validation losses by voice."""
    by_update = {losses["update"]: losses for losses in card["losses"]["validation"]}
    return by_update[0], by_update[card["best_update"]]


@pytest.fixture(scope="module")
def tuned_smolvlm(smolvlm_folder: Path, split_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "smolvlm"
    quietly(smolvlm_folder, split_log, out)
    return out


def test_smolvlm_learns_and_is_served_at_edge_and_cloud(
    tuned_smolvlm: Path, smolvlm_folder: Path, frame: bytes
) -> None:
    card = json.loads((tuned_smolvlm / "card.json").read_text())
    before, best = before_and_best(card)
    assert all(best[voice] < 0.85 * before[voice] for voice in ("full", "exit1", "exit2"))
    assert card["places"] == ["edge", "cloud"]
    assert set(card["quality"]) == {"edge", "cloud"}
    assert set(card["quality"]["edge"]) <= set(KINDS)
    assert set(card["scores"]) == {"split", "answers", "picture", "blank-image", "another-image"}
    assert card["base"]["digest"] == checkpoints.load(smolvlm_folder).digest
    assert not Path(f"{tuned_smolvlm}.partial").exists()
    with Image.open(tuned_smolvlm / "curve.png") as curve:
        assert curve.width > 300

    # Both load, the split included, and answer.
    question = Question(EXPLAIN.prompt, (frame,), max_tokens=8)
    edge, cloud = edge_answerer(str(tuned_smolvlm)), any_cloud_answerer(str(tuned_smolvlm))
    assert edge.quality["edge"] == card["quality"]["edge"]
    assert set(answer_at_once(edge, question).made_by) <= {"exit1", "exit2"}
    assert set(answer_at_once(cloud, question).made_by) == {"full"}


def test_the_vision_tower_and_the_vocabulary_stay_as_they_were(tuned_smolvlm: Path, smolvlm_folder: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (smolvlm_folder, tuned_smolvlm))
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if "text_model.layers" in name and "_proj." in name}
    assert {before[name].dtype for name in before} == {after[name].dtype for name in after}


def test_thresholds_are_calibrated_and_say_how(tuned_smolvlm: Path) -> None:
    settings = json.loads((tuned_smolvlm / "exits.json").read_text())
    calibration = settings["calibration"]
    assert calibration["agreement"] == QUICK.exit_agreement
    assert (
        calibration["thresholds"]
        == settings["thresholds"]
        == list(edge_answerer(str(tuned_smolvlm)).partition.exits.thresholds)
    )
    assert calibration["tokens"] > 20


def test_the_picture_is_worth_something_to_a_model_that_sees(split_log: Path, tmp_path: Path) -> None:
    """The bundled model knows rendered scenes, and learns these sentences about them."""
    options = replace(
        QUICK, passes=1, learning_rate=5e-4, exit_learning_rate=1e-3, held_out_moments=20, served_moments=2
    )
    card, _ = quietly(None, split_log, tmp_path / "own", options)
    before, best = before_and_best(card)
    assert best["full"] < before["full"]
    seen, blank = (card["scores"][picture]["loss"]["full"] for picture in ("picture", "blank-image"))
    assert seen < blank
    assert checkpoints.load(tmp_path / "own").model.dtype == torch.float32
    assert json.loads((tmp_path / "own" / "config.json").read_text())["dtype"] == "float16"


def test_qwen3_vl_is_fine_tuned_and_served_at_edge_and_cloud(
    qwen_folder: Path, split_log: Path, tmp_path: Path, frame: bytes
) -> None:
    card, warnings = quietly(qwen_folder, split_log, tmp_path / "qwen")
    assert not any("no edge can host it" in warning for warning in warnings)
    assert card["places"] == ["edge", "cloud"]
    before, best = before_and_best(card)
    assert best["full"] < 0.85 * before["full"]
    weights, tuned = (load_file(folder / "model.safetensors") for folder in (qwen_folder, tmp_path / "qwen"))
    assert all(tuned[name].equal(weights[name]) for name in weights if "visual" in name or "embed_tokens" in name)
    for make in (edge_answerer, any_cloud_answerer):
        assert answer_at_once(make(str(tmp_path / "qwen")), Question(EXPLAIN.prompt, (frame,))).tokens


KILLED_IN_UPDATE_7 = """
import os, signal, sys
import torch
from roadside.models.fine_tuning import FineTuning, fine_tune
from roadside.models.fine_tuning_options import FineTuningOptions

take_update = FineTuning._update

def until_killed(self, update, *others):
    if update == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_update(self, update, *others)

FineTuning._update = until_killed
torch.set_num_threads(1)  # as in the tests: sums over threads round differently
fine_tune(*sys.argv[1:4], eval(sys.argv[4]), device="cpu")
"""


def test_a_killed_run_goes_on_to_the_same_end(
    smolvlm_folder: Path, split_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = quietly(smolvlm_folder, split_log, tmp_path / "whole")
    arguments = [str(smolvlm_folder), str(split_log), str(tmp_path / "resumed"), repr(QUICK)]
    killed = subprocess.run([sys.executable, "-P", "-c", KILLED_IN_UPDATE_7, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    with pytest.raises(ConfigurationError, match="another options"):
        quietly(smolvlm_folder, split_log, tmp_path / "resumed", replace(QUICK, seed=1))

    taken: list[int] = []
    take_update = FineTuning._update

    def noted(self: FineTuning, update: int, *others: Any) -> dict[str, float]:
        taken.append(update)
        return take_update(self, update, *others)

    monkeypatch.setattr(FineTuning, "_update", noted)
    resumed, _ = quietly(smolvlm_folder, split_log, tmp_path / "resumed")
    # The last checkpoint lies after six updates.
    assert taken == list(range(6, whole["updates"]))
    for name in ("model.safetensors", "exits.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in ("whole", "resumed"))
        assert all(one[key].equal(other[key]) for key in one)
    assert resumed["scores"] == whole["scores"]
    assert resumed["losses"] == whole["losses"]


def test_a_checkpoint_that_was_cut_short_is_named(
    smolvlm_folder: Path, split_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fine_tuning, "write_folder", stopped)
        with pytest.raises(KeyboardInterrupt):
            quietly(smolvlm_folder, split_log, tmp_path / "out", replace(QUICK, passes=0.5))
    state = tmp_path / "out.partial" / "state" / "learnt.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match="cut short"):
        quietly(smolvlm_folder, split_log, tmp_path / "out", replace(QUICK, passes=0.5))


def test_a_folder_in_use_is_not_overwritten(smolvlm_folder: Path, split_log: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="exists already"):
        quietly(smolvlm_folder, split_log, tmp_path)


def test_pictures_of_one_pixel_are_named(
    smolvlm_folder: Path, split_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadside.datasets.drivelog.Clip.frame", lambda self, at_s: Image.new("RGB", (1, 1)))
    warnings: list[str] = []
    with pytest.raises(LogError, match="no picture of the train split can be used"):
        fine_tune(
            str(smolvlm_folder),
            split_log,
            tmp_path / "out",
            QUICK,
            device="cpu",
            warn=warnings.append,
            progress=Progress(disable=True),
        )
    assert any("side below 32 px" in warning for warning in warnings)


# Adapters


@pytest.fixture(scope="module")
def adapter(smolvlm_folder: Path, split_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "adapter"
    quietly(smolvlm_folder, split_log, out, keep_adapter=True)
    return out


def test_a_kept_adapter_is_served_as_the_merged_model_is(adapter: Path, tuned_smolvlm: Path, frame: bytes) -> None:
    assert not (adapter / "model.safetensors").exists()
    assert (adapter / "adapter_model.safetensors").stat().st_size < (tuned_smolvlm / "model.safetensors").stat().st_size
    question = Question(EXPLAIN.prompt, (frame,), max_tokens=12)
    for make in (edge_answerer, any_cloud_answerer):
        kept, merged = (answer_at_once(make(str(folder)), question) for folder in (adapter, tuned_smolvlm))
        assert kept.tokens == merged.tokens


def with_base(adapter: Path, base: Path, folder: Path, digest: str) -> Path:
    """The adapter, with another base named."""
    shutil.copytree(adapter, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"base": {"digest": digest}}))
    return folder


def test_an_adapter_for_another_base_is_named(
    adapter: Path, smolvlm_folder: Path, qwen_folder: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(smolvlm_folder, tmp_path / "changed"))
    (changed / "config.json").write_text((changed / "config.json").read_text() + "\n")
    digest = checkpoints.load(smolvlm_folder).digest
    for number, base in enumerate((changed, qwen_folder, checkpoints.bundled_model_path())):
        expected = digest if base == changed else ""
        with pytest.raises(ModelError, match="was made for another base"):
            checkpoints.load(with_base(adapter, base, tmp_path / str(number), expected))
    with pytest.raises(ModelError, match="its base cannot be used"):
        checkpoints.load(with_base(adapter, tmp_path / "gone", tmp_path / "orphan", ""))


def test_a_damaged_adapter_is_named(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"adapter in .* cannot be read"):
        checkpoints.load(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no base model"):
        checkpoints.load(folder)


# The verb


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    smolvlm_folder: Path, split_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from roadside.cli import app

    monkeypatch.chdir(tmp_path)
    arguments = ["fine-tune", "--model", str(smolvlm_folder), "--data", str(split_log), "--dry-run"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0
    for word in ("adapters", "moments", "updates", "memory"):
        assert word in said.stdout
    as_json = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert as_json["updates"] >= 1
    assert list(tmp_path.iterdir()) == []
