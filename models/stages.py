"""Any supported Hugging Face decoder as a chain of stages: runs of layers with caches of their own.

A stage is an instance of the decoder's own class, built from a sliced configuration, so no `forward` is rewritten:
embedded inputs go in, and because its final norm is the identity, the raw residual stream comes out and can go
into the next stage, on another machine if need be (CE-CoLLM, section III). `self_check` proves the chain.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..bus.errors import SplitError
from .exits import default_layers
from .prompt_layout import LaidOutPrompt, VisualFeatures, position_ids_behind
from .without_initialisation import without_initialisation

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class Stage:
    """Layers [first_layer, end_layer) of a decoder, in evaluation mode. It shares its weights with the decoder."""

    def __init__(self, decoder: PreTrainedModel, first_layer: int, end_layer: int) -> None:
        """Raises SplitError where the layers are not the decoder's, or the decoder is not made of layers and a norm."""
        check_shape(decoder)
        if not 0 <= first_layer < end_layer <= decoder.config.num_hidden_layers:
            raise SplitError(
                f"layers {first_layer} to {end_layer} are not a stage of a decoder with "
                f"{decoder.config.num_hidden_layers} layers; choose exit layers inside it"
            )
        self.first_layer = first_layer
        self.end_layer = end_layer
        config = _sliced_config(decoder.config, first_layer, end_layer)
        with without_initialisation():
            self._layers: Any = type(decoder)(config)
        self._layers.norm = nn.Identity()
        del self._layers.embed_tokens
        weights = decoder.state_dict()
        self._layers.load_state_dict(
            {name: weights[_name_in_decoder(name, first_layer)] for name in self._layers.state_dict()}, assign=True
        )
        self._layers.eval()

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self._layers.config.hidden_size

    @property
    def position_axes(self) -> int:
        """On how many axes positions are counted: 3 for M-RoPE, else 1."""
        return 3 if any(hasattr(module, "mrope_section") for module in self._layers.modules()) else 1

    def session(self) -> StageSession:
        """An empty session: one sequence that is to run through this stage."""
        return StageSession(self._layers, self.first_layer)


@dataclass(frozen=True, slots=True, eq=False)
class StageInputs:
    """Of one pass through a stage.

    hidden: [1, positions, hidden_size]. position_ids: [1, positions] or [axes, 1, positions]. visual: what else the
    decoder is called with.
    """

    hidden: Tensor
    position_ids: Tensor
    visual: dict[str, Any]


class StageSession:
    """One sequence in one stage: the key-value cache, and inputs that arrived but were not run yet.

    Inputs wait because a token that an earlier exit spoke need not run deeper at once; when a later token must,
    the waiting positions run together with it, in one batch, and the cache is as if nobody had skipped anything.
    """

    def __init__(self, layers: PreTrainedModel, first_layer: int = 0) -> None:
        """layers: of the stage, which begins with the decoder's layer `first_layer`.

        cache_layers: the keys and values of each, with their kind in the library's own class.
        """
        from transformers import DynamicCache

        self.layers = layers
        self._first_layer = first_layer
        # The configuration tells the cache which layers slide; without it their windows would be wrong.
        self._cache = DynamicCache(config=layers.config)
        # Untyped: what kinds of layers there are depends on the model.
        self.cache_layers: list[Any] = self._cache.layers
        for layer in self.cache_layers:
            # Layers with a running state, as linear attention has, do not say whether they slide.
            if getattr(layer, "is_sliding", False):
                # Otherwise it forgets at once what left its window, which a roll-back may bring back into it.
                layer.activate_past_recording()
        self._waiting: list[Tensor] = []
        # [axes, positions fed], once they are anything but 0, 1, 2 and so on.
        self._position_ids: Tensor | None = None
        self._visual: VisualFeatures | None = None
        self.positions_run = 0

    @property
    def waiting_positions(self) -> int:
        """How many positions were fed but not run."""
        return sum(hidden.shape[1] for hidden in self._waiting)

    @property
    def memory_bytes(self) -> int:
        """Memory of the cache and of the inputs that wait."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors())

    @property
    def positions(self) -> int:
        """How many positions were fed, run or not."""
        return self.positions_run + self.waiting_positions

    def feed(self, hidden: Tensor | LaidOutPrompt, position_ids: Tensor | None = None) -> None:
        """Append the inputs of the next positions: [1, positions, hidden_size]. Nothing is computed.

        position_ids: of these positions, int64 [axes, positions], where they are not the numbers that follow the
            largest id so far.
        A laid-out prompt says itself what they are; what it adds inside the stage can only begin a sequence, and
        ValueError is raised where others came before it.
        """
        start = self.positions
        if isinstance(hidden, LaidOutPrompt):
            if start and hidden.visual is not None:
                raise ValueError(f"visual features come with a sequence's first positions, not after {start} others")
            self._visual = hidden.visual
            hidden, position_ids = hidden.embeddings, hidden.position_ids
        if position_ids is not None or self._position_ids is not None:
            self._append_position_ids(start, hidden.shape[1], position_ids)
        self._waiting.append(hidden)

    def position_ids(self, start: int, end: int) -> Tensor | None:
        """Of the positions [start, end) that were fed: int64 [axes, end - start]; None where they count from 0."""
        return None if self._position_ids is None else self._position_ids[:, start:end]

    @torch.inference_mode()
    def catch_up(self) -> Tensor:
        """Run every waiting position and return their residual stream: [1, positions that waited, hidden_size]."""
        inputs = self.take_waiting()
        output = self.layers(
            inputs_embeds=inputs.hidden,
            position_ids=inputs.position_ids,
            past_key_values=self._cache,
            use_cache=True,
            **inputs.visual,
        )
        return output.last_hidden_state

    def take_waiting(self) -> StageInputs:
        """What waits, for whoever runs it and appends its keys and values to `cache_layers`; it counts as run."""
        # What came over a wire, or from another stage, may be of another precision than these weights.
        hidden = torch.cat(self._waiting, dim=1).to(self.layers.dtype)
        self._waiting.clear()
        start, end = self.positions_run, self.positions_run + hidden.shape[1]
        visual = self._visual_inputs(start, end)
        self.positions_run = end
        return StageInputs(hidden, self._position_ids_for_decoder(start, end).to(hidden.device), visual)

    @property
    def adds_visual_features(self) -> bool:
        """Whether positions that wait have features added inside the stage."""
        return bool(self._visual_inputs(self.positions_run, self.positions))

    def roll_back(self, positions: int) -> None:
        """Keep the first so many positions, run or waiting, and forget what came after them.

        Raises ValueError where there are fewer, and SplitError where the model's cache cannot forget.
        """
        if not 0 <= positions <= self.positions:
            raise ValueError(f"cannot keep {positions} of {self.positions} positions")
        if self._position_ids is not None:
            self._position_ids = self._position_ids[:, :positions] if positions else None
        if self._visual is not None:
            self._visual = self._visual.kept(positions) if positions else None
        if positions >= self.positions_run:
            self._keep_waiting(positions - self.positions_run)
        else:
            self._waiting.clear()
            self._crop_cache(self.positions_run - positions)
            self.positions_run = positions

    def free(self) -> None:
        """Overwrite the cache, and the inputs that wait, with zeros; then be empty, as a new session.

        The tensors that were fed are overwritten themselves, so whoever fed them must not need them any more.
        """
        for tensor in self._tensors():
            # The whole storage: after a roll-back the tensor shows only a part of it.
            storage: Any = tensor.untyped_storage()
            storage.fill_(0)
        self._waiting.clear()
        self._cache.reset()
        self._position_ids = self._visual = None
        self.positions_run = 0

    def _visual_inputs(self, start: int, end: int) -> dict[str, Any]:
        """What the decoder is called with for positions [start, end) beside their hidden states."""
        if self._visual is None:
            return {}
        end_layer = self._first_layer + self.layers.config.num_hidden_layers
        return self._visual.inputs(start, end, self._first_layer, end_layer)

    def _append_position_ids(self, start: int, count: int, position_ids: Tensor | None) -> None:
        before = self._position_ids
        if before is None:
            before = torch.arange(start)[None]
        if position_ids is None:
            position_ids = position_ids_behind(before, count)
        # Positions that were fed before without ids have the same one on each axis.
        self._position_ids = torch.cat([before.expand(position_ids.shape[0], -1), position_ids], dim=1)

    def _position_ids_for_decoder(self, start: int, end: int) -> Tensor:
        """As decoders take them: [1, positions] or, on several axes, [axes, 1, positions].

        Absolute, because a stage cannot infer them: its own cache may lag behind the sequence.
        """
        position_ids = self.position_ids(start, end)
        if position_ids is None:
            return torch.arange(start, end)[None]
        return position_ids if len(position_ids) == 1 else position_ids[:, None]

    def _keep_waiting(self, positions: int) -> None:
        if positions < self.waiting_positions:
            kept = torch.cat(self._waiting, dim=1)[:, :positions]
            self._waiting = [kept] if positions else []

    def _crop_cache(self, positions: int) -> None:
        """Forget the last so many positions."""
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        for layer in self.cache_layers:
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise SplitError(
                    f"a cache of {type(layer).__name__} cannot be rolled back; choose a model whose layers all attend"
                )
        for layer in self.cache_layers:
            # Not by the layer's own `crop`: it also cuts a sliding layer to its window, and the second roll-back would
            # silently leave a window with positions missing.
            layer.keys = layer.keys[..., :-positions, :]
            layer.values = layer.values[..., :-positions, :]
            if layer.is_sliding:
                layer.cumulative_length -= positions

    def _tensors(self) -> Iterator[Tensor]:
        yield from self._waiting
        for layer in self.cache_layers:
            if getattr(layer, "is_initialized", False):
                yield layer.keys
                yield layer.values


@dataclass(frozen=True)
class SplitDecoder:
    """A decoder cut at the exit layers e1 < e2 of its N layers.

    The edge holds `first` [0, e1) and `second` [e1, e2). The cloud holds `rest` [e1, N) and `head`, so that a hidden
    state taken at the first exit is all that it needs of a position.
    head: residual stream [..., hidden_size] to logits [..., vocabulary].
    """

    first: Stage
    second: Stage
    rest: Stage
    head: nn.Module


def split_decoder(model: PreTrainedModel, exit_layers: tuple[int, ...]) -> SplitDecoder:
    """Cut the decoder of a language or vision-language model. Raises SplitError where it cannot be cut there."""
    decoder = decoder_of(model)
    check_exit_layers(model.config, exit_layers)
    first_exit, second_exit = exit_layers
    return SplitDecoder(
        first=Stage(decoder, 0, first_exit),
        second=Stage(decoder, first_exit, second_exit),
        rest=Stage(decoder, first_exit, decoder.config.num_hidden_layers),
        head=final_head(model),
    )


def visual_layers(config: Any) -> int:
    """How many of a model's first layers have visual features added behind them (DeepStack)."""
    return len(getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or ())


def check_exit_layers(config: PretrainedConfig, exit_layers: tuple[int, ...]) -> None:
    """Raise SplitError where an edge would not hold every layer that visual features are added behind.

    A hidden state that leaves it must have them all: the cloud has never seen the image.
    """
    needed = visual_layers(config)
    if exit_layers[0] >= needed:
        return
    possible = default_layers(config.get_text_config().num_hidden_layers, needed)
    raise SplitError(
        f"{config.model_type} adds visual features behind each of its first {needed} layers, and early exits after "
        f"layers {exit_layers[0]} and {exit_layers[1]} leave some of them to the cloud, which sees no image; with "
        f"exits after layers {possible[0]} and {possible[1]} it could be split, with these it answers at the cloud only"
    )


def final_head(model: PreTrainedModel) -> nn.Module:
    """The model's final norm and output layer, as one module over the raw residual stream."""
    decoder = decoder_of(model)
    check_shape(decoder)
    output_layer: Any = model.get_output_embeddings()
    return nn.Sequential(decoder.norm, output_layer).eval()


def decoder_of(model: PreTrainedModel) -> Any:
    """The part of a language or vision-language model that runs over embeddings: `embed_tokens`, `layers`, `norm`."""
    base: Any = model.base_model
    return base.get_decoder()


def check_shape(decoder: nn.Module) -> None:
    """Raise SplitError where a decoder is not `embed_tokens`, `layers` and a `norm`, which is what can be sliced."""
    missing = [name for name in ("embed_tokens", "layers", "norm") if not hasattr(decoder, name)]
    if missing:
        raise SplitError(
            f"{type(decoder).__name__} has no {', '.join(missing)}, so it cannot be split; "
            "choose a model with a Llama-like decoder"
        )


def _sliced_config(config: PretrainedConfig, first_layer: int, end_layer: int) -> PretrainedConfig:
    sliced = copy.deepcopy(config)
    for name, value in vars(config).items():
        # Some families keep lists with one entry per layer (layer_types, no_rope_layers, ...).
        if isinstance(value, (list, tuple)) and len(value) == config.num_hidden_layers:
            sliced.__dict__[name] = list(value[first_layer:end_layer])
    # Through __dict__, because some configurations validate their fields one by one, and here they change together.
    sliced.__dict__["num_hidden_layers"] = end_layer - first_layer
    # Stages have no embedding; the constructor insists on making one, so it is made as small as can be.
    sliced.__dict__["vocab_size"] = 1
    sliced.__dict__["pad_token_id"] = None
    return sliced


def _name_in_decoder(name_in_stage: str, first_layer: int) -> str:
    """The weight's name in the whole decoder: a stage counts its layers from 0."""
    parts = name_in_stage.split(".")
    if parts[0] == "layers":
        parts[1] = str(int(parts[1]) + first_layer)
    return ".".join(parts)
