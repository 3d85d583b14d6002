"""Proof at load time that the stages are the model: a split that is wrong would answer fluently and wrongly.

Stages run a prompt and the tokens behind it as they do in service: token by token through their caches, then, rolled
back, all at once. Hidden states at both exits, logits and most likely tokens must be those of the unsplit model
(reference.py), whatever its family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..bus.errors import SplitError
from .prompt_encoder import PromptEncoder
from .reference import Reference, read_reference
from .stages import SplitDecoder, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Both sides compute the same products in another order, so they agree to float32 rounding; a wrong split is off by
# whole multiples.
TOLERANCE = 1e-3


def self_check(model: PreTrainedModel, encoder: PromptEncoder, split: SplitDecoder, inputs: dict[str, Tensor]) -> None:
    """Compare every part with the unsplit model on one prompt.

    inputs: what the model's processor made of a prompt with an image, batch 1.
    Raises SplitError with the first thing that differs.
    """
    reference = read_reference(model, inputs, (split.first.end_layer, split.second.end_layer))
    check_split(type(model).__name__, encoder, split, inputs, reference)


def check_split(
    model_name: str, encoder: PromptEncoder, split: SplitDecoder, inputs: dict[str, Tensor], reference: Reference
) -> None:
    """Compare every part with what the unsplit model computed on the same inputs. Raises SplitError."""
    check_edge(model_name, encoder, split.first, split.second, inputs, reference)
    check_rest(model_name, split.rest, split.head, reference)


@torch.inference_mode()
def check_edge(
    model_name: str,
    encoder: PromptEncoder,
    first: Stage,
    second: Stage,
    inputs: dict[str, Tensor],
    reference: Reference,
) -> None:
    """Compare an edge's parts with what the unsplit model computed on the same inputs. Raises SplitError."""
    session, deeper = first.session(), second.session()
    after_first, after_second = [], []
    hidden = encoder.encode(inputs)
    for token in [*reference.continuation.tolist(), None]:
        start = session.positions
        session.feed(hidden)
        after_first.append(session.catch_up())
        deeper.feed(after_first[-1], session.position_ids(start, session.positions))
        after_second.append(deeper.catch_up()[:, -1:])
        if token is not None:
            hidden = encoder.embed(token)
    at_first, at_second = (f"hidden states after layer {stage.end_layer}" for stage in (first, second))
    _compare(model_name, at_first, torch.cat(after_first, dim=1), reference.after_first)
    _compare(model_name, at_second, torch.cat(after_second, dim=1), reference.after_second)

    start = reference.prompt_positions
    for each in (session, deeper):
        each.roll_back(start)
    session.feed(torch.cat([encoder.embed(token) for token in reference.continuation.tolist()], dim=1))
    again = session.catch_up()
    deeper.feed(again, session.position_ids(start, session.positions))
    _compare(model_name, f"{at_first}, rolled back,", again, reference.after_first[:, start:])
    _compare(model_name, f"{at_second}, rolled back,", deeper.catch_up(), reference.after_second[:, 1:])


@torch.inference_mode()
def check_rest(model_name: str, rest: Stage, head: nn.Module, reference: Reference) -> None:
    """Compare a cloud's part, fed with the unsplit model's states at the first exit. Raises SplitError."""
    session = rest.session()

    def read(count: int) -> Tensor:
        here = slice(session.positions, session.positions + count)
        position_ids = None if reference.position_ids is None else reference.position_ids[:, here]
        session.feed(reference.after_first[:, here], position_ids)
        return head(session.catch_up()[0, -1])

    tokens = len(reference.continuation)
    logits = [read(count) for count in [reference.prompt_positions, *[1] * tokens]]
    _compare(model_name, "logits", logits[-1], reference.last_logits)
    session.roll_back(reference.prompt_positions)
    _compare(model_name, "logits, rolled back,", read(tokens), reference.last_logits)
    likeliest, expected = [int(each.argmax()) for each in logits], reference.likeliest.tolist()
    if likeliest != expected:
        at = next(index for index, pair in enumerate(zip(likeliest, expected, strict=True)) if pair[0] != pair[1])
        raise SplitError(_message(model_name, f"token {at + 1} of {len(expected)} differs"))


def _compare(model_name: str, what: str, ours: Tensor, expected: Tensor) -> None:
    if ours.shape != expected.shape:
        raise SplitError(_message(model_name, f"{what} are {list(ours.shape)} and not {list(expected.shape)}"))
    error = float((ours.float() - expected).abs().max() / expected.abs().max())
    # Written so that a NaN, which compares false, is refused too.
    if not error <= TOLERANCE:
        raise SplitError(_message(model_name, f"{what} are off by {error:.2g}"))


def _message(model_name: str, difference: str) -> str:
    return (
        f"{model_name} cannot be split: its stages do not reproduce it ({difference}); "
        "use the bundled model or one of another family"
    )
