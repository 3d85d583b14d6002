"""What a fine-tuning would take, before any weights are loaded: what `roadside fine-tune --dry-run` prints."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from PIL import Image
from torch import nn

from ..bus.errors import ModelError
from ..bus.kinds import EXPLAIN
from ..datasets.jpeg import encode_jpeg
from .checkpoints import load_configuration, reason
from .fine_tuning_data import JPEG_QUALITY, LONGEST_SIDE_PX, Stop, right_answer
from .fine_tuning_examples import ExampleWriter
from .fine_tuning_model import ADAPTED_LAYERS
from .fine_tuning_options import FineTuningOptions
from .questions import Question
from .stages import decoder_of

GIB = 1024**3
# Of a decoder layer's forward pass the backward pass needs so many values per position: multiples of the hidden and
# of the MLP's width. Counted in Llama's layers with adapters and dropout: 17 and 5; the rest is for wider attention.
KEPT_PER_HIDDEN = 20
KEPT_PER_MLP = 5


@dataclass(frozen=True)
class Memory:
    """Estimated bytes. frozen: the model's own weights; learnt: what is trained, in float32 with its gradient and
    Adam's two moments; activations: what the decoder's forward pass of one sample keeps for its backward pass.
    """

    frozen: int
    learnt: int
    activations: int

    @property
    def total(self) -> int:
        return self.frozen + self.learnt + self.activations


@dataclass(frozen=True)
class Plan:
    """parameters: of the model; adapters and exits: of them and beside them, what is trained.

    training, validation, test: moments; positions: of a prompt about a wide picture with its answer; available_bytes:
    free memory of the device now. frozen_type: of the model's own weights while it is trained; stored_type: on disk.
    """

    model: str
    device: str
    parameters: int
    adapters: int
    exits: int
    exit_layers: tuple[int, ...]
    training: int
    validation: int
    test: int
    updates: int
    positions: int
    memory: Memory
    available_bytes: int
    frozen_type: str
    stored_type: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"memory_total_bytes": self.memory.total}

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.available_bytes

    def lines(self) -> list[str]:
        """For people."""
        memory = self.memory
        return [
            f"model {self.model}: {_millions(self.parameters)} parameters on {self.device}",
            f"trained: {_millions(self.adapters)} in adapters of the decoder, {_millions(self.exits)} in exits after "
            f"layers {' and '.join(str(layer) for layer in self.exit_layers)}",
            f"moments: {self.training:,} to train on, {self.validation:,} to validate on, {self.test:,} to score on",
            f"updates: {self.updates:,}; a prompt with its answer has about {self.positions:,} positions",
            f"memory: about {_gib(memory.total)} (frozen weights {_gib(memory.frozen)}, trained {_gib(memory.learnt)}, "
            f"activations {_gib(memory.activations)}); {_gib(self.available_bytes)} are free",
        ]


def make_plan(
    model: str | None, stops: dict[str, list[Stop]], options: FineTuningOptions, device: torch.device
) -> Plan:
    """stops: by split. Raises ModelError where the configuration or the processor cannot be used."""
    config, processor, exit_layers = load_configuration(model)
    empty = empty_model(config)
    adapters, exits = count_adapters(empty, options.rank), count_exits(empty, exit_layers)
    # A frozen weight needs no more bits than it was published with; a CPU computes best in float32.
    stored: Any = config.dtype or torch.float32
    frozen = stored if device.type == "cuda" else torch.float32
    positions = _positions(processor, stops["train"][0])
    return Plan(
        model=str(model or "bundled"),
        device=str(device),
        parameters=count_parameters(empty),
        adapters=adapters,
        exits=exits,
        exit_layers=exit_layers,
        training=len(stops["train"]),
        validation=len(stops["val"]),
        test=len(stops["test"]),
        updates=options.updates(len(stops["train"])),
        positions=positions,
        memory=estimate_memory(
            empty,
            learnt=adapters + exits,
            positions=positions,
            frozen_bytes_each=frozen.itemsize,
            computed_bytes_each=2 if device.type == "cuda" else 4,
        ),
        available_bytes=free_memory(device),
        frozen_type=str(frozen).removeprefix("torch."),
        stored_type=str(stored).removeprefix("torch."),
    )


def _positions(processor: Any, stop: Stop) -> int:
    """Of a question about a picture of a dash camera's usual shape, 16:9, as large as it is sent, with its answer."""
    picture = Image.new("RGB", (LONGEST_SIDE_PX, LONGEST_SIDE_PX * 9 // 16))
    jpeg = encode_jpeg(picture, JPEG_QUALITY)
    example = ExampleWriter(processor).write(Question(EXPLAIN.prompt, (jpeg,)), right_answer(EXPLAIN, stop.segment))
    return example.inputs["input_ids"].shape[1]


def empty_model(config: Any) -> Any:
    """A model of this configuration without memory for its weights. Raises ModelError where there is no such class."""
    from transformers import AutoModelForImageTextToText

    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config)
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"a {config.model_type} model cannot be asked about images ({reason(error)}); "
            "choose a vision-language model"
        ) from error


def count_parameters(model: Any) -> int:
    """Tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_adapters(model: Any, rank: int) -> int:
    """LoRA's weights: rank x (inputs + outputs) of every adapted projection."""
    return sum(
        rank * (layer.in_features + layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and re.fullmatch(ADAPTED_LAYERS, name)
    )


def count_exits(model: Any, exit_layers: tuple[int, ...]) -> int:
    """A norm's gain and a square map each."""
    width = decoder_of(model).config.hidden_size
    return len(exit_layers) * width * (width + 1)


def estimate_memory(
    model: Any, *, learnt: int, positions: int, frozen_bytes_each: int, computed_bytes_each: int
) -> Memory:
    """frozen_bytes_each: of a frozen weight; computed_bytes_each: of an activation.

    What the vision tower needs in passing is not in it: it keeps nothing for a backward pass.
    """
    config = decoder_of(model).config
    kept = KEPT_PER_HIDDEN * config.hidden_size + KEPT_PER_MLP * config.intermediate_size
    return Memory(
        frozen=count_parameters(model) * frozen_bytes_each,
        learnt=learnt * 4 * 4,
        activations=positions * config.num_hidden_layers * kept * computed_bytes_each,
    )


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _gib(count: int) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB / 10 else f"{count / 1024**2:,.0f} MiB"
