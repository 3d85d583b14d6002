"""The list of decoding modes, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..decoding import Generation, Steps
from . import EdgeMode, ce, ce_optimistic, ce_sync, cloud, naive, naive_kv, standalone, through


@dataclass(frozen=True, slots=True)
class Mode:
    """How an edge decodes.

    decode: from an edge (`Edge`), a prompt (`Prompt`), `Limits` and a `Sharing` to the answer.
    is_lossless: the answer is the whole model's, token by token, as long as the cloud answers and its context is
        exact (float32; in float16 near ties may fall otherwise).
    needs_cloud: without one it is `standalone`.
    encodes_prompt: the edge itself looks at the picture; else only if the cloud falls silent.
    context_dtype: of hidden states on the wire, where the mode prescribes it.
    """

    name: EdgeMode
    decode: Callable[..., Steps[Generation]]
    is_lossless: bool
    needs_cloud: bool = True
    encodes_prompt: bool = True
    context_dtype: Literal["float32"] | None = None


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("standalone", standalone.decode, is_lossless=False, needs_cloud=False),
        Mode("cloud", cloud.decode, is_lossless=True, encodes_prompt=False),
        Mode("naive", naive.decode, is_lossless=True, context_dtype="float32"),
        Mode("naive-kv", naive_kv.decode, is_lossless=True),
        Mode("ce", ce.decode, is_lossless=False),
        Mode("ce-sync", ce_sync.decode, is_lossless=False),
        Mode("ce-optimistic", ce_optimistic.decode, is_lossless=False),
        Mode("through", through.decode, is_lossless=True),
    )
}
