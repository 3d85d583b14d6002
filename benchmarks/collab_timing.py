"""What the stages of a model cost here: CPU time of the bundled model, or of random weights of real size on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bus.errors import ConfigurationError
from ..models.exits import default_layers, most_likely, new_heads
from ..models.mode_planner import Cut
from ..models.stages import Stage, StageSession
from .collab_model import TracingModel
from .collab_profiles import Cost, Profile
from .collab_traces import TracedScene

# How many positions a call may have, for the line through their costs.
_BATCHES = (1, 2, 4, 8, 16, 40)
_REPEATS = 15
# What stands in a session's cache before a call is timed: a prompt of the bundled model's length and some words.
_POSITIONS_BEFORE = 45
_VOCABULARY = 32_000

Watch = Callable[[], float]


def cpu_ms() -> float:
    """CPU time of this thread: whatever else the machine does is not counted."""
    return time.thread_time() * 1000


@dataclass(frozen=True)
class _Part:
    """Stages that run one after the other, and what is made of the last position: logits, or nothing."""

    stages: Sequence[Stage]
    head: nn.Module

    def cost(self, hidden: Callable[[int], Tensor], watch: Watch) -> Cost:
        """Of one call. hidden: makes inputs [1, positions, hidden_size]."""
        sessions = [stage.session() for stage in self.stages]
        self._call(sessions, hidden(_POSITIONS_BEFORE))
        points = [(batch, self._batch_ms(sessions, hidden(batch), watch)) for batch in _BATCHES]
        return fitted(points)

    def _batch_ms(self, sessions: Sequence[StageSession], inputs: Tensor, watch: Watch) -> float:
        samples_ms: list[float] = []
        for _ in range(_REPEATS):
            began_ms = watch()
            self._call(sessions, inputs)
            samples_ms.append(watch() - began_ms)
            for session in sessions:
                session.roll_back(_POSITIONS_BEFORE)
        return statistics.median(samples_ms)

    @torch.inference_mode()
    def _call(self, sessions: Sequence[StageSession], hidden: Tensor) -> None:
        for session in sessions:
            session.feed(hidden)
            hidden = session.catch_up()
        most_likely(self.head(hidden[:, -1]))


def fitted(points: Sequence[tuple[int, float]]) -> Cost:
    """The line through (positions, milliseconds) that is nearest in relative terms; no part of it is below 0."""
    positions, costs_ms = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    position_ms, call_ms = np.polyfit(positions, costs_ms, 1, w=1 / costs_ms)
    return Cost(max(0.0, float(call_ms)), max(0.0, float(position_ms)))


def measured_profile(model: TracingModel, scenes: Sequence[TracedScene]) -> Profile:
    """A model's own costs on this machine, in CPU time. scenes: whose pictures are read to time the prompt."""
    size = model.edge.first.hidden_size
    heads = model.edge.exits.heads

    def hidden(positions: int) -> Tensor:
        return torch.randn(1, positions, size)

    return Profile(
        name="measured",
        cut=Cut(model.edge.first.end_layer, model.edge.second.end_layer, model.whole.rest.end_layer, size),
        prompt=Cost(statistics.median(_prompt_ms(model, scene) for scene in scenes)),
        first=_Part([model.edge.first], heads[0]).cost(hidden, cpu_ms),
        second=_Part([model.edge.second], heads[1]).cost(hidden, cpu_ms),
        rest=_Part([model.whole.rest], model.whole.head).cost(hidden, cpu_ms),
        whole=_Part([model.whole.first, model.whole.rest], model.whole.head).cost(hidden, cpu_ms),
    )


def _prompt_ms(model: TracingModel, scene: TracedScene) -> float:
    began_ms = cpu_ms()
    model.prompt(scene.question).inputs()
    return cpu_ms() - began_ms


def random_profile(*, device: str, layers: int, hidden_size: int) -> Profile:
    """Costs of a Llama of that size with random weights, in float16 on a GPU and float32 elsewhere.

    Exits stand after a quarter and a half of the layers. A prompt costs nothing but its positions: there is no picture.
    Raises ConfigurationError where the device is not there, or the size does not fit.
    """
    from transformers import LlamaConfig, LlamaModel

    on_gpu = device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise ConfigurationError(
            f"this machine, or its torch, has no {device}: use --device cpu and a smaller --hidden"
        )
    if hidden_size % 128 or layers < 4:
        raise ConfigurationError("--hidden must be a multiple of 128 and --layers at least 4")
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden_size,
        # As in LLaMA 7B: 11,008 for 4,096, and heads of 128.
        intermediate_size=hidden_size * 43 // 16,
        num_attention_heads=hidden_size // 128,
        num_key_value_heads=hidden_size // 128,
        vocab_size=_VOCABULARY,
    )
    torch.set_num_threads(1)
    precision = torch.float16 if on_gpu else torch.float32
    with torch.device(device):
        decoder: Any = LlamaModel(config).eval()
        decoder.to(precision)
        heads = new_heads(2, hidden_size, _VOCABULARY).to(device, precision)
        final = nn.Sequential(decoder.norm, nn.Linear(hidden_size, _VOCABULARY, bias=False, dtype=precision))
    first_end, second_end = default_layers(layers)
    first, second = Stage(decoder, 0, first_end), Stage(decoder, first_end, second_end)
    rest = Stage(decoder, first_end, layers)

    def hidden(positions: int) -> Tensor:
        return torch.randn(1, positions, hidden_size, device=device, dtype=precision)

    watch = _gpu_ms if on_gpu else cpu_ms
    return Profile(
        name=f"random weights, {layers} layers of {hidden_size} on {_device_name(device)}",
        cut=Cut(first_end, second_end, layers, hidden_size),
        prompt=Cost(0.0),
        first=_Part([first], heads[0]).cost(hidden, watch),
        second=_Part([second], heads[1]).cost(hidden, watch),
        rest=_Part([rest], final).cost(hidden, watch),
        whole=_Part([first, rest], final).cost(hidden, watch),
    )


def _gpu_ms() -> float:
    """Elapsed time, once the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter() * 1000


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
