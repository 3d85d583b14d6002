"""What the stages of a model cost here: CPU time of the bundled model, or of random weights of real size on a GPU."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
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
from .collab_edge import whole_answer
from .collab_model import TracingModel
from .collab_profiles import Cost, Profile
from .collab_traces import TracedScene

# How many positions a call may have, for the line through their costs.
_BATCHES = (1, 2, 4, 8, 16, 40)
_REPEATS = 15
# What stands in a session's cache before a call is timed: a prompt of the bundled model's length and some words.
_POSITIONS_BEFORE = 45
_VOCABULARY = 32_000
# By scene in turns: after how many tokens the stages behind the first are run.
_CAUGHT_UP = (1, 4, 2, 8)

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

    def _call(self, sessions: Sequence[StageSession], hidden: Tensor) -> None:
        for session in sessions[:-1]:
            session.feed(hidden)
            hidden = session.catch_up()
        sessions[-1].feed(hidden)
        _caught_up(sessions[-1], self.head)


def fitted(points: Sequence[tuple[int, float]]) -> Cost:
    """The line through (positions, milliseconds) that is nearest in relative terms; no part of it is below 0."""
    positions, costs_ms = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    position_ms, call_ms = np.polyfit(positions, costs_ms, 1, w=1 / costs_ms)
    return Cost(max(0.0, float(call_ms)), max(0.0, float(position_ms)))


def measured_profile(model: TracingModel, scenes: Sequence[TracedScene]) -> Profile:
    """A model's own costs on this machine, in CPU time, as they are in the course of these scenes' answers.

    A stage that is called again and again has its weights in the processor's caches, and is twice as fast as one that
    takes its turn with others, as it does in a node.
    """
    meter = _Meter()
    for number, scene in enumerate(scenes):
        meter.answer(model, scene, batch=_CAUGHT_UP[number % len(_CAUGHT_UP)])
    first, rest = meter.cost("first"), meter.cost("rest")
    edge = model.edge
    return Profile(
        name="measured",
        cut=Cut(edge.first.end_layer, edge.second.end_layer, model.whole.rest.end_layer, edge.first.hidden_size),
        prompt=Cost(statistics.median(meter.samples_ms["prompt"][1])),
        first=first,
        second=meter.cost("second"),
        rest=rest,
        whole=Cost(first.call_ms + rest.call_ms, first.position_ms + rest.position_ms),
    )


class _Meter:
    """CPU times by part, and then by how many positions were run."""

    def __init__(self) -> None:
        self.samples_ms: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def answer(self, model: TracingModel, scene: TracedScene, *, batch: int) -> None:
        """Walk through the whole model's answer. batch: after so many tokens the later stages catch up."""
        answer = whole_answer(scene, max_tokens=scene.question.max_tokens)
        edge, whole = model.edge, model.whole
        first, second, rest = edge.first.session(), edge.second.session(), whole.rest.session()
        inputs = self._timed("prompt", 1, lambda: model.prompt(scene.question).inputs())
        for number in range(len(answer)):
            first.feed(inputs)
            hidden = self._caught_up("first", first, edge.exits.heads[0])
            second.feed(hidden)
            rest.feed(hidden)
            if number % batch == 0:
                self._caught_up("second", second, edge.exits.heads[1])
                self._caught_up("rest", rest, whole.head)
            inputs = edge.embed(answer[number])

    def cost(self, part: str) -> Cost:
        return fitted([(count, statistics.median(samples)) for count, samples in self.samples_ms[part].items()])

    def _caught_up(self, part: str, session: StageSession, head: nn.Module) -> Tensor:
        return self._timed(part, session.waiting_positions, lambda: _caught_up(session, head))

    def _timed(self, part: str, positions: int, work: Callable[[], Any]) -> Any:
        began_ms = cpu_ms()
        made = work()
        self.samples_ms[part][positions].append(cpu_ms() - began_ms)
        return made


@torch.inference_mode()
def _caught_up(session: StageSession, head: nn.Module) -> Tensor:
    """Run what waits, and say the token after it."""
    hidden = session.catch_up()
    most_likely(head(hidden[:, -1]))
    return hidden


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
