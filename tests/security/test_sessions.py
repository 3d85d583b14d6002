"""An edge's sessions at a cloud, over a secured broker: another edge, as itself, cannot speak in them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from roadside.bus import topics
from roadside.bus.messages import CloseContext, ContextChunk, InferRequest, Lease, LeaseRequest, Nack, TokenReply
from roadside.bus.tensors import pack
from roadside.bus.transport import Bus
from roadside.cloud_node.collaboration import ContextServer
from roadside.cloud_node.parts import CloudParts
from roadside.cloud_node.settings import CollaborationSettings, ContextSettings
from roadside.models.inference_worker import InferenceWorker
from roadside.models.stages import Stage, decoder_of, final_head
from transformers import LlamaConfig, LlamaForCausalLM

PATIENCE_S = 20.0
HIDDEN_SIZE = 16
FIRST_EXIT = 1


@pytest.fixture(scope="module")
def parts() -> CloudParts:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    return CloudParts(Stage(decoder_of(model), FIRST_EXIT, 2), final_head(model))


class Edge:
    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard = bus.subscribe(topics.TOKEN, edge=bus.name)

    def say(self, body: Any) -> None:
        self.bus.post(topics.INFER if isinstance(body, InferRequest) else topics.CONTEXT, body, node="cloud-1")

    async def hear(self) -> Any:
        return (await asyncio.wait_for(anext(self.heard), PATIENCE_S)).body


async def test_a_lease_is_worth_nothing_in_anothers_hand(guarded, parts):
    rows = np.random.default_rng(0).normal(size=(3, HIDDEN_SIZE)).astype(np.float16)
    worker = InferenceWorker()
    async with guarded.bus("cloud-1") as bus, guarded.bus("edge-1") as first, guarded.bus("edge-2") as second:
        server = ContextServer(
            bus=bus,
            name="cloud-1",
            compute=worker.run_urgently,
            slot_power_w=60.0,
            settings=CollaborationSettings(ContextSettings(), 20.0, 4),
            parts=parts,
            model_hash="abc",
        )
        serving = asyncio.create_task(server.run())
        owner, thief = Edge(first), Edge(second)
        for active in (server.active, owner.heard.active, thief.heard.active):
            await asyncio.wait_for(active.wait(), PATIENCE_S)
        for edge in (owner, thief):
            edge.say(LeaseRequest(model_hash="abc", first_exit_layer=FIRST_EXIT, hidden_size=HIDDEN_SIZE))
        granted, others = await owner.hear(), await thief.hear()
        assert isinstance(granted, Lease)
        assert isinstance(others, Lease)
        assert granted.lease != others.lease

        session = f"{granted.lease}.1"
        context = ContextChunk(session=session, rollback=0, position=0, hidden=pack(rows, "float16"))
        request = InferRequest(session=session, rollback=0, up_to=3, remaining_ms=10_000.0)
        owner.say(context)
        owner.say(request)
        right = await owner.hear()
        assert isinstance(right, TokenReply)
        # The thief knows the session's name, and guesses another.
        for stolen in (session, f"{'0' * 32}.1"):
            thief.say(InferRequest(session=stolen, rollback=0, up_to=3, remaining_ms=10_000.0))
            refusal = await thief.hear()
            assert isinstance(refusal, Nack)
            assert refusal.reason == "unknown-session"
            thief.say(ContextChunk(session=stolen, rollback=1, position=0, hidden=pack(-rows, "float16")))
            thief.say(CloseContext(session=stolen))
        # Whatever it has sent has arrived when this is answered, and the owner's session is as it was.
        thief.say(LeaseRequest(model_hash="abc", first_exit_layer=FIRST_EXIT, hidden_size=HIDDEN_SIZE))
        assert isinstance(await thief.hear(), Lease)
        assert server.counters["chunks.refused.session"] == 2
        owner.say(request)
        assert (await owner.hear()).tokens == right.tokens
        assert server.gauges()["contexts"] == 1
        serving.cancel()
        await asyncio.wait({serving})
    worker.close()
