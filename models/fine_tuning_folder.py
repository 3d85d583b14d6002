"""The folder of a fine-tuned model: weights or adapter, calibrated exits, the curve, and the card that says it all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from . import checkpoints
from .calibration import calibrate
from .checkpoints import CARD_FILE, Checkpoint
from .exits import Exits
from .fine_tuning_data import Moment
from .fine_tuning_model import VOICES, Tuner
from .fine_tuning_plan import Plan
from .fine_tuning_scores import Heard, served, success_rates
from .fine_tuning_state import Progress
from .model_card import training_machine

CURVE_FILE = "curve.png"

LICENCES = (
    "BDD-X's annotations are UC Berkeley's: for education and research, not for profit; that notice goes with what "
    "was learnt from them. Videos are the user's own or BDD100K's, under its licence.",
    "The base's licence holds for the base, for weights that it is merged into, and for adapters of it.",
)
LIMITS = (
    "It looks at one frame. What it says of hours, places and cameras that the data do not show is not known.",
    "Success rates compare classes that keywords find in people's sentences; where they find none, nothing is judged.",
    "It must not steer anything.",
)


def write_folder(
    folder: Path,
    *,
    checkpoint: Checkpoint,
    tuner: Tuner,
    plan: Plan,
    options: dict[str, Any],
    state: Progress,
    validation: Heard,
    heard: dict[str, Heard],
    scored_on: str,
    asked: Sequence[Moment],
    dropped: dict[str, int],
    keep_adapter: bool,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write what `checkpoints.load` reads, ask it as it will be served, and return its card.

    tuner: with the best of what it learnt, on the CPU. validation: what calibrates the exits; heard: what is scored,
    by picture; asked: what the finished model answers.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = f"{checkpoint.name.rpartition('/')[2]}-fine-tuned"
    base_digest = checkpoint.digest
    calibration = calibrate(validation.votes(), options["exit_agreement"])
    Exits(tuner.exit_layers, tuner.heads(), calibration.thresholds).save(folder, calibration.as_json())
    draw_curve(state, folder / CURVE_FILE)
    if keep_adapter:
        _save_adapter(tuner, plan.model, folder)
    else:
        tuner.float()
        merged = tuner.adapted.merge_and_unload()
        merged.to(getattr(torch, plan.stored_type)).save_pretrained(folder)
        checkpoint.processor.save_pretrained(folder)
    card: dict[str, Any] = {
        "name": name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {"name": plan.model, "digest": base_digest, "merged": not keep_adapter},
        "parameters": plan.parameters,
        "trained_parameters": plan.adapters + plan.exits,
        "data": {
            "what": "pictures, telemetry and annotations of the training split of a log in BDD-X's format",
            "moments": {"train": plan.training, "val": plan.validation, "test": plan.test},
            "left_out": dropped,
        },
        "options": options,
        "updates": state.updates,
        "best_update": state.best_update,
        "losses": {
            "validation": [{"update": update, **_rounded(losses)} for update, losses in state.validations],
            "first": _rounded(state.losses[0]),
            "last": _rounded(state.losses[-1]),
        },
        "machine": training_machine(
            torch.cuda.get_device_name() if plan.device.startswith("cuda") else "cpu",
            *("torch", "transformers", "peft", "accelerate"),
        ),
        "scores": {
            "split": scored_on,
            "answers": len(next(iter(heard.values())).losses),
            **{picture: _scores(each) for picture, each in heard.items()},
        },
        "licences": LICENCES,
        "limits": LIMITS,
    }
    # Written before the model is asked, because loading an adapter reads it.
    _write_card(folder, card)
    answerers, refusal = served(str(folder))
    card["places"] = list(answerers)
    if refusal:
        card["not_at_the_edge"] = refusal
    if asked:
        card["quality"] = {place: success_rates(answerer, asked, advance) for place, answerer in answerers.items()}
    _write_card(folder, card)
    return card


def draw_curve(state: Progress, png_path: Path) -> None:
    """Training loss of every update, pale, and the validation losses, by voice."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 3.6))
    validated = [update for update, _ in state.validations]
    for number, voice in enumerate(VOICES):
        colour = f"C{number}"
        updates = range(1, state.updates + 1)
        panel.plot(updates, [losses[voice] for losses in state.losses], color=colour, alpha=0.25, linewidth=0.8)
        panel.plot(validated, [losses[voice] for _, losses in state.validations], color=colour, marker=".", label=voice)
    panel.axvline(state.best_update, color="0.7", linestyle=":")
    panel.set(xlabel="updates", ylabel="loss for each token", yscale="log")
    panel.legend(title="validation")
    figure.tight_layout()
    figure.savefig(png_path, dpi=90)
    pyplot.close(figure)


def _save_adapter(tuner: Tuner, base: str, folder: Path) -> None:
    base_folder = checkpoints.bundled_model_path() if base == "bundled" else Path(base)
    # A folder by its whole path, because the adapter may be loaded from anywhere.
    tuner.adapted.peft_config["default"].base_model_name_or_path = (
        str(base_folder.resolve()) if base_folder.is_dir() else base
    )
    tuner.adapted.save_pretrained(folder)
    # A form to fill in, which the card makes needless.
    (folder / "README.md").unlink(missing_ok=True)


def _scores(heard: Heard) -> dict[str, dict[str, float]]:
    return {"loss": _rounded(heard.mean_losses()), "token_accuracy": _rounded(heard.token_accuracy())}


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    return round(values, 4) if isinstance(values, float) else values


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")
