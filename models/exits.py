"""Early exits: small heads after inner layers, which speak where they are sure (CE-CoLLM, section III-A)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..bus.errors import MessageRefused, ModelError

WEIGHTS_FILE = "exits.safetensors"
SETTINGS_FILE = "exits.json"

# The paper's threshold, for exits that nobody calibrated.
UNCALIBRATED_THRESHOLD = 0.8


@dataclass(frozen=True)
class Exits:
    """The exits of one model, shallowest first.

    layers: each exit reads the residual stream after so many layers.
    heads: hidden states [..., hidden_size] to logits [..., vocabulary], float32.
    thresholds: the confidence from which each exit may speak.
    """

    layers: tuple[int, ...]
    heads: nn.ModuleList
    thresholds: tuple[float, ...]

    def predict(self, exit_index: int, hidden: Tensor) -> tuple[int, float]:
        """The next token after hidden states [1, positions, hidden_size] by one exit, and its confidence."""
        return most_likely(self.heads[exit_index](hidden[:, -1]))

    def save(self, folder: Path, calibration: dict[str, object]) -> None:
        """Write heads (float16) and settings; `calibration` says how the thresholds came about."""
        from safetensors.torch import save_file

        save_file({name: weight.half() for name, weight in self.heads.state_dict().items()}, folder / WEIGHTS_FILE)
        settings = {"layers": self.layers, "thresholds": self.thresholds, "calibration": calibration}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n")


def most_likely(logits: Tensor) -> tuple[int, float]:
    """Greedy choice from logits [1, vocabulary]: the token and its softmax probability (the paper's confidence)."""
    probability, token = torch.softmax(logits[0].float(), dim=-1).max(dim=-1)
    return int(token), float(probability)


def new_heads(count: int, hidden_size: int, vocabulary: int) -> nn.ModuleList:
    """Untrained heads: a norm of their own, because inner layers live on another scale than the last, then logits."""
    return nn.ModuleList(
        nn.Sequential(nn.RMSNorm(hidden_size, eps=1e-5), nn.Linear(hidden_size, vocabulary, bias=False))
        for _ in range(count)
    )


def load_exits(folder: Path, hidden_size: int, vocabulary: int) -> Exits:
    """Read what `Exits.save` wrote, as float32. Raises ModelError where it does not fit the model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    layers, thresholds = read_settings(folder)
    heads = new_heads(len(layers), hidden_size, vocabulary)
    try:
        heads.load_state_dict({name: weight.float() for name, weight in load_file(folder / WEIGHTS_FILE).items()})
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise _unreadable(folder, error) from error
    return Exits(layers, heads.eval().requires_grad_(False), thresholds)


def read_settings(folder: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The exits' layers and thresholds, without their heads. Raises ModelError where they cannot be read."""
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text())
        layers = tuple(int(layer) for layer in settings["layers"])
        thresholds = tuple(float(threshold) for threshold in settings["thresholds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from error
    if len(layers) != 2 or len(thresholds) != 2 or not 0 < layers[0] < layers[1]:
        raise ModelError(
            f"{folder / SETTINGS_FILE} must name two exit layers in rising order, and a threshold for each"
        )
    return layers, thresholds


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"the early exits in {folder} cannot be read ({error}); restore the folder or train anew")


def exits_from_final_head(head: nn.Module, layers: tuple[int, int]) -> Exits:
    """Exits for a model that has none: its own final norm and head after these layers.

    Untrained exits are seldom sure, so an edge that stands alone answers badly with them.
    """
    return Exits(layers, nn.ModuleList([head, head]), (UNCALIBRATED_THRESHOLD,) * 2)


def default_layers(layer_count: int, at_least: int = 1) -> tuple[int, int]:
    """After a quarter and a half of the layers: the paper's positions (8 and 16 of 32).

    at_least: where the first exit may stand at the earliest.
    """
    first = max(1, at_least, layer_count // 4)
    return first, max(first + 1, layer_count // 2)


def thresholds_for(wanted: Sequence[float], exits: Exits) -> tuple[float, ...]:
    """The thresholds to decode with: the wanted ones, or the model's own where none are given.

    Raises MessageRefused where their number is not that of the exits.
    """
    if not wanted:
        return exits.thresholds
    if len(wanted) != len(exits.layers):
        raise MessageRefused("exit-thresholds", f"{len(wanted)} given, the model has {len(exits.layers)} exits")
    return tuple(wanted)
