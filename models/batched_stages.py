"""Several sequences through one stage in one pass: what a cloud gains from several edges asking at once.

The waiting positions of all sessions are laid end to end as one row of inputs, each session attending to its own keys
and values only, by a block-diagonal mask. Nothing is padded, so a prompt and single tokens may share a pass; what is
computed in vain are attention scores between sequences, which are few beside the rest while sequences are short. The
keys and values go to each session's own cache, which is afterwards as if it had run alone, but for rounding.

What one sequence holds can reach another only as a number that is not finite, which no mask stops; a pass with such
numbers in it is done again, one session at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .stages import StageInputs, StageSession

# Entries of a pass's mask, queries times keys; beyond it sessions go into another pass.
_LARGEST_MASK = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class CaughtUp:
    """outputs: of each session, as its `catch_up` would return it. passes: through the stage that this took.

    alone: how many sessions were run by themselves because their caches cannot be shared.
    """

    outputs: list[Tensor]
    passes: int
    alone: int


@torch.inference_mode()
def catch_up_together(sessions: Sequence[StageSession]) -> CaughtUp:
    """Run every waiting position of different sessions of one stage, each of which has some."""
    shared = [index for index, session in enumerate(sessions) if can_share(session)]
    alone = [index for index in range(len(sessions)) if index not in set(shared)]
    outputs: dict[int, Tensor] = {index: sessions[index].catch_up() for index in alone}
    passes = len(alone)
    for group in _groups([(index, sessions[index]) for index in shared]):
        results = _one_pass([session for _, session in group])
        outputs.update(zip((index for index, _ in group), results, strict=True))
        passes += 1
    return CaughtUp([outputs[index] for index in range(len(sessions))], passes, len(alone))


def can_share(session: StageSession) -> bool:
    """Whether a session's cache can take part in a pass with others.

    Not with sliding windows or a recurrent state, whose masks are the library's own business, nor while visual
    features are to be added inside the stage.
    """
    from transformers.cache_utils import DynamicLayer

    return (
        all(type(layer) is DynamicLayer for layer in session.cache_layers)
        and session.layers.config._attn_implementation in ("sdpa", "eager")
        and not session.adds_visual_features
    )


def _groups(sessions: list[tuple[int, StageSession]]) -> Iterator[list[tuple[int, StageSession]]]:
    """Sessions that fit into one pass each, in their order."""
    group: list[tuple[int, StageSession]] = []
    queries = keys = 0
    for index, session in sessions:
        queries += session.waiting_positions
        keys += session.positions
        if group and queries * keys > _LARGEST_MASK:
            yield group
            group, queries, keys = [], session.waiting_positions, session.positions
        group.append((index, session))
    if group:
        yield group


def _one_pass(sessions: list[StageSession]) -> list[Tensor]:
    if len(sessions) == 1:
        return [sessions[0].catch_up()]
    from transformers.cache_utils import Cache

    layers = sessions[0].layers
    pasts = [session.positions_run for session in sessions]
    inputs = [session.take_waiting() for session in sessions]
    counts = [each.hidden.shape[1] for each in inputs]
    hidden = torch.cat([each.hidden for each in inputs], dim=1)
    shared: list[Any] = [
        _SharedLayer(each, counts) for each in zip(*(session.cache_layers for session in sessions), strict=True)
    ]
    hidden = layers(
        inputs_embeds=hidden,
        attention_mask=_mask(pasts, counts, hidden.dtype),
        position_ids=_position_ids(inputs),
        past_key_values=Cache(layers=shared),
        use_cache=True,
    ).last_hidden_state
    if not bool(torch.isfinite(hidden).all()):
        return [_again(*each) for each in zip(sessions, pasts, inputs, strict=True)]
    return list(hidden.split(counts, dim=1))


def _again(session: StageSession, past: int, inputs: StageInputs) -> Tensor:
    """Run by itself what was run with others."""
    session.roll_back(past)
    ids = inputs.position_ids
    session.feed(inputs.hidden, ids if ids.ndim == 2 else ids[:, 0])
    return session.catch_up()


def _mask(pasts: list[int], counts: list[int], dtype: torch.dtype) -> Tensor:
    """[1, 1, queries, keys]: 0 where a query sees a key, of its own sequence and not after it."""
    blocks = [
        torch.ones(count, past + count, dtype=torch.bool).tril(past) for past, count in zip(pasts, counts, strict=True)
    ]
    seen = torch.block_diag(*blocks).bool()
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[None, None]


def _position_ids(inputs: list[StageInputs]) -> Tensor:
    """End to end: [1, positions], or [axes, 1, positions] where any sequence counts on several."""
    axes = max((len(each.position_ids) for each in inputs if each.position_ids.ndim == 3), default=0)
    if not axes:
        return torch.cat([each.position_ids for each in inputs], dim=-1)
    return torch.cat([each.position_ids.expand(axes, 1, -1) for each in inputs], dim=-1)


class _SharedLayer:
    """One layer of the caches of several sessions, as the one cache layer that a decoder's attention writes to."""

    is_sliding = False

    def __init__(self, layers: Sequence[Any], counts: list[int]) -> None:
        self._layers = layers
        self._counts = counts

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hand each session its part of [1, heads, positions, size]; returns all keys and values, end to end."""
        new = zip(key_states.split(self._counts, dim=-2), value_states.split(self._counts, dim=-2), strict=True)
        grown = [layer.update(*each, *args, **kwargs) for layer, each in zip(self._layers, new, strict=True)]
        return torch.cat([keys for keys, _ in grown], dim=-2), torch.cat([values for _, values in grown], dim=-2)
