"""A cloud node's configuration: the keys of its TOML file and the flags of `roadside cloud`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ..bus.kinds import KINDS
from ..models.serving import NodeConfiguration
from .settings import CollaborationSettings, ContextSettings

Backend = Literal["transformers", "openai"]
Rate = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0)]


class CloudConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """See NodeConfiguration for the keys that edges have, too.

    backend: "transformers" runs the model in this process and can help edges; "openai" asks a server that speaks
        OpenAI's chat completions (vLLM, SGLang, llama.cpp, a provider's) and cannot.

    With the first of them:
    context_ttl_s: an edge's context that is silent for so long is forgotten.
    context_budget_mb: memory for all contexts together; beyond it the least recently used one is forgotten, those of
        edges that hold more than an equal share first; 0: edges are refused, and answer alone.
    context_grace_ms: how long a request waits for context that is still on its way.
    context_batch: how many edges' answers are continued in one pass through the model.

    With the second:
    url: of the server, up to /v1; `model` is its name there.
    api_key_env: the variable of the environment that holds the key. Keys do not belong into files.
    parallel_requests: the server is asked so many questions at once.
    max_tokens: of an answer, as the server counts them.
    instructions: what the model is told before it is asked; None: ours, "": nothing.
    examples_log: folder of a driving log, from whose training split examples come; None: no examples.
    examples: how many come with a question. seed: the same one takes the same examples.
    quality: success rate that somebody has measured, one for all task kinds or by kind. Where nobody has, vehicles take
        it for 0 and ask others.
    price_per_million_prompt_tokens, price_per_million_completion_tokens: in any currency.
    joules_per_prompt_token, joules_per_completion_token: of the server, for the energy model.
    """

    name: str = "cloud-1"
    slot_power_w: Amount = 60.0
    backend: Backend = "transformers"
    context_ttl_s: Annotated[float, Meta(gt=0, le=3600)] = ContextSettings().session_ttl_s
    context_budget_mb: Annotated[float, Meta(ge=0)] = ContextSettings().budget_bytes / 1e6
    context_grace_ms: Annotated[float, Meta(ge=0, le=10_000)] = CollaborationSettings().grace_ms
    context_batch: Annotated[int, Meta(ge=1, le=256)] = CollaborationSettings().max_batch
    url: str | None = None
    api_key_env: str | None = None
    parallel_requests: Annotated[int, Meta(ge=1, le=256)] = 8
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 96
    instructions: Annotated[str, Meta(max_length=20_000)] | None = None
    examples_log: str | None = None
    examples: Annotated[int, Meta(ge=0, le=16)] = 4
    seed: int = 0
    quality: Rate | dict[str, Rate] | None = None
    price_per_million_prompt_tokens: Amount = 0.0
    price_per_million_completion_tokens: Amount = 0.0
    joules_per_prompt_token: Amount = 0.03
    joules_per_completion_token: Amount = 3.0

    def __post_init__(self) -> None:
        if self.backend == "openai" and (self.url is None or self.model is None):
            raise ValueError("backend = 'openai' asks a server: give its url and its name for the model")
        if self.backend != "openai" and self.url is not None:
            raise ValueError("a url is for backend = 'openai'; without it, the model runs in this process")
        if isinstance(self.quality, dict) and (unknown := self.quality.keys() - KINDS.keys()):
            raise ValueError(f"quality knows no task kind {min(unknown)!r}; there are {', '.join(KINDS)}")

    @property
    def quality_by_kind(self) -> dict[str, float]:
        """Empty where nobody has measured it."""
        if isinstance(self.quality, dict):
            return self.quality
        return {} if self.quality is None else dict.fromkeys(KINDS, self.quality)
