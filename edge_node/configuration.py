"""An edge node's configuration: the keys of its TOML file and the flags of `roadside edge`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..bus.tensors import TensorType
from ..models.collaboration import Collaboration, ContextForm, PromptUpload
from ..models.modes import EdgeMode
from ..models.serving import NodeConfiguration


class EdgeConfiguration(NodeConfiguration, frozen=True, kw_only=True):
    """The keys of `roadside edge`'s TOML file; see NodeConfiguration.

    mode: how it answers together with a cloud, which it offers as the place `edge+cloud`; "standalone" never does,
        "auto" picks what would be done first.
    lossless: of "auto": only modes that say what the whole model says.
    prompt_upload: how a prompt goes up: as hidden states, so that raw pixels stay here, as the image that it is, or
        (auto) as what is done first.
    context: how the tokens after it go up: as hidden states, as ids, which want a prompt that went up as an image, or
        (auto) as what is done first.
    draft: tell the vehicle what the edge would say alone, as a provisional answer.
    cloud: the one cloud to ask; None: the one that would reply soonest.
    cloud_timeout_ms: a reply that takes longer makes the edge end the answer alone.
    chunk_bytes: the largest piece of context in one message; some brokers take no packet above 128 kB. A question that
        goes up as it is goes in one message, with its frames.
    context_dtype: of hidden states on the wire. int8 takes half of float16's bytes and changes a token now and then.
    """

    name: str = "edge-1"
    slot_power_w: Annotated[float, Meta(ge=0)] = 50.0
    parallel_tasks: Annotated[int, Meta(ge=1, le=64)] = 4
    mode: EdgeMode = "ce"
    lossless: bool = False
    prompt_upload: PromptUpload = "hidden"
    context: ContextForm = "hidden"
    draft: bool = True
    cloud: str | None = None
    cloud_timeout_ms: Annotated[float, Meta(gt=0, le=60_000)] = 400.0
    chunk_bytes: Annotated[int, Meta(ge=1024, le=4 * 1024 * 1024)] = 120_000
    context_dtype: TensorType = "float16"

    def __post_init__(self) -> None:
        """Raises ConfigurationError for settings that exclude each other."""
        _ = self.collaboration

    @property
    def collaboration(self) -> Collaboration:
        return Collaboration(
            mode=self.mode,
            lossless=self.lossless,
            prompt_upload=self.prompt_upload,
            context=self.context,
            draft=self.draft,
        )
