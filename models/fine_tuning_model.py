"""The model while it is fine-tuned: low-rank adapters in its decoder, and two exits that learn beside it.

LoRA (Hu et al., 2021) leaves the model's weights as they are and learns a low-rank change of each projection of the
decoder; the vision tower is not touched. An exit is the model's own output layer behind a learnt norm and a learnt
linear map of the hidden state (a tuned lens: Belrose et al., 2023). That is hidden_size^2 weights instead of
hidden_size x vocabulary, and multiplied out it is a head like any other (exits.py).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..bus.errors import ModelError
from .exits import new_heads
from .stages import decoder_of

# Plain names such as "q_proj" would also hit the vision tower.
ADAPTED_LAYERS = r".*(language_model|text_model)\.layers\..*\.(q|k|v|o|gate|up|down)_proj"
VOICES = ("full", "exit1", "exit2")


class Exit(nn.Module):
    """Hidden states [..., hidden_size] of an inner layer to what the model's output layer reads."""

    def __init__(self, gain: Tensor) -> None:
        """gain: [hidden_size], of the model's final norm: the exit begins as that norm and no map at all."""
        super().__init__()
        width = len(gain)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.map = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.norm.weight.copy_(gain)
            self.map.weight.copy_(torch.eye(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.map(self.norm(hidden))


class Tuner(nn.Module):
    """A vision-language model with adapters and exits. Only these have gradients."""

    def __init__(self, model: Any, exit_layers: tuple[int, ...], *, rank: int, dropout: float) -> None:
        """Adapts the given model in place. Raises ModelError where it is not built as the adapters expect."""
        super().__init__()
        decoder = decoder_of(model)
        if exit_layers[-1] >= decoder.config.num_hidden_layers:
            raise ModelError(
                f"exits after layers {exit_layers} need more than {exit_layers[-1]} decoder layers; the model has "
                f"{decoder.config.num_hidden_layers}"
            )
        if model.get_output_embeddings().bias is not None:
            raise ModelError(f"the output layer of {type(model).__name__} has a bias, which exits have no place for")
        self.exit_layers = exit_layers
        self._exits = [Exit(decoder.norm.weight.detach().float()) for _ in exit_layers]
        self.exits = nn.ModuleList(self._exits)
        self._adapted = with_adapters(model, rank, dropout)

    @property
    def adapted(self) -> Any:
        """peft's wrapper."""
        return self._adapted

    @property
    def model(self) -> Any:
        """The adapted model itself, in its own class."""
        return self._adapted.base_model.model

    def forward(self, inputs: dict[str, Tensor], answer_length: int) -> Tensor:
        """What each voice would say at the last `answer_length` positions: logits [voices, answer_length, vocabulary].

        The exits read detached hidden states: they learn to speak from layers that serve the whole model, and do not
        bend them to their own needs.
        """
        output = self.model.base_model(**inputs, output_hidden_states=True, use_cache=False)
        heard = [output.last_hidden_state[:, -answer_length:]]
        for layer, exit_ in zip(self.exit_layers, self._exits, strict=True):
            heard.append(exit_(output.hidden_states[layer][:, -answer_length:].detach()))
        return functional.linear(torch.cat(heard), self._output_weight)

    @property
    def _output_weight(self) -> Tensor:
        return self.model.get_output_embeddings().weight

    def learnt(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def learn_again(self, weights: dict[str, Tensor]) -> None:
        """Put weights of `learnt` back."""
        with torch.no_grad():
            for name, parameter in self.learnt().items():
                parameter.copy_(weights[name])

    @torch.no_grad()
    def heads(self) -> nn.ModuleList:
        """The exits as heads of exits.py: each map multiplied by the output layer, in float32."""
        output_weight = self._output_weight.float().cpu()
        vocabulary, width = output_weight.shape
        heads = new_heads(len(self.exits), width, vocabulary)
        weights: dict[str, Tensor] = {}
        for number, exit_ in enumerate(self._exits):
            weights[f"{number}.0.weight"] = exit_.norm.weight
            weights[f"{number}.1.weight"] = output_weight @ exit_.map.weight.cpu()
        heads.load_state_dict(weights)
        return heads


def answer_losses(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean cross-entropy of each voice [voices] on an answer's tokens; logits: [voices, tokens, vocabulary]."""
    voices, tokens, vocabulary = logits.shape
    each = functional.cross_entropy(logits.float().reshape(-1, vocabulary), answer.repeat(voices), reduction="none")
    return each.reshape(voices, tokens).mean(dim=1)


def with_adapters(model: Any, rank: int, dropout: float) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=ADAPTED_LAYERS)
    try:
        with warnings.catch_warnings():
            # peft still asks transformers by a name that is on its way out.
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(model, settings)
    except ValueError as error:
        raise ModelError(
            f"{type(model).__name__} has no decoder layers with the projections q, k, v, o, gate, up and down, "
            "so it cannot be fine-tuned here; choose a model with a Llama-like decoder"
        ) from error
