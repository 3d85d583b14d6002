"""The one topic table. Subscriptions, access rules, the reference page and tests are generated from it.

MQTT does not tell a subscriber who published, so the sender stands in every address, where a broker's access
rules can hold it, and receivers refuse an envelope that names another sender.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .errors import ConfigurationError
from .messages import (
    Accepted,
    CloseContext,
    ContextChunk,
    ContextTokens,
    Frame,
    InferRequest,
    Lease,
    LeaseRefused,
    LeaseRequest,
    Message,
    Nack,
    NodeState,
    Outcome,
    PolicyWeights,
    PromptContext,
    Rejected,
    Result,
    Task,
    TokenReply,
)

PREFIX = "roadside/v1"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
NAME = re.compile(rf"{_NAME}\Z")

Overflow = Literal["drop-oldest", "refuse"]


@dataclass(frozen=True)
class Topic:
    """One row of the table.

    pattern: the address below `roadside/v1/{fleet}/`; `sender` names the placeholder that holds the publisher.
    overflow: what a receiver does when its queue is full. "refuse" never drops silently: the receiver is told of
        each message that found no room and must answer it (a task becomes a Reject).
    """

    name: str
    pattern: str
    bodies: tuple[type[Message], ...]
    sender: str
    qos: Literal[0, 1]
    retained: bool
    overflow: Overflow
    about: str

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{(\w+)\}", self.pattern))

    @cached_property
    def _address(self) -> re.Pattern[str]:
        inner = re.sub(r"\{(\w+)\}", rf"(?P<\1>{_NAME})", self.pattern)
        return re.compile(rf"{PREFIX}/(?P<fleet>{_NAME})/{inner}\Z")

    def address(self, fleet: str, **names: str) -> str:
        """The exact address, for publishing. Every placeholder must be named."""
        if missing := set(self.placeholders) - names.keys():
            raise TypeError(f"topic {self.name} needs {', '.join(sorted(missing))}")
        return self.filter(fleet, **names)

    def filter(self, fleet: str, **names: str) -> str:
        """The subscription filter; placeholders that are not named become `+`."""
        if unknown := names.keys() - set(self.placeholders):
            raise TypeError(f"topic {self.name} has no {', '.join(sorted(unknown))}")
        checked = {key: checked_name(value) for key, value in names.items()}
        inner = self.pattern.format(**{key: checked.get(key, "+") for key in self.placeholders})
        return f"{PREFIX}/{checked_name(fleet)}/{inner}"

    def parse(self, address: str) -> dict[str, str] | None:
        """The names in an address, `fleet` included, or None where it is not of this topic."""
        match = self._address.match(address)
        return match.groupdict() if match else None


def checked_name(name: str) -> str:
    """A fleet's, vehicle's or node's name that is safe to stand in an address; ConfigurationError otherwise."""
    if not NAME.match(name):
        raise ConfigurationError(
            f"{name!r} cannot be a name: use 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit"
        )
    return name


VEHICLE_STATE = Topic(
    "vehicle-state", "vehicle/{vehicle}/state", (NodeState,), "vehicle", 1, True, "drop-oldest",
    "A vehicle's self-portrait and last will.",
)  # fmt: skip
ACK = Topic(
    "ack", "vehicle/{vehicle}/ack/{node}", (Accepted, Rejected), "node", 1, False, "refuse",
    "A node takes or refuses one attempt of a task.",
)  # fmt: skip
RESULT = Topic(
    "result", "vehicle/{vehicle}/result/{node}", (Result,), "node", 1, False, "refuse",
    "A provisional or final answer.",
)  # fmt: skip
OUTCOME = Topic(
    "outcome", "vehicle/{vehicle}/outcome", (Outcome,), "vehicle", 1, False, "refuse",
    "The terminal state of a task, with its breakdown and the decision behind it.",
)  # fmt: skip
NODE_STATE = Topic(
    "node-state", "node/{node}/state", (NodeState,), "node", 1, True, "drop-oldest",
    "A node's self-portrait, at least twice a second, and its last will.",
)  # fmt: skip
TASK = Topic(
    "task", "node/{node}/task/{vehicle}", (Task,), "vehicle", 1, False, "refuse",
    "A node's inbox.",
)  # fmt: skip

FRAME = Topic(
    "frame", "vehicle/{vehicle}/frame", (Frame,), "vehicle", 0, False, "drop-oldest",
    "What a vehicle saw, sampled, for people.",
)  # fmt: skip
POLICY = Topic(
    "policy", "policy/{learner}", (PolicyWeights,), "learner", 1, True, "drop-oldest",
    "A learner's newest weights, for the vehicles that follow it.",
)  # fmt: skip
# What follows runs between an edge and its cloud while an answer is being made. QoS 0: what is lost is asked for again
# by a Nack or a repeated request, or the edge goes on alone; nothing of it is worth keeping for a later connection.
CONTEXT = Topic(
    "context", "node/{node}/context/{edge}", (LeaseRequest, ContextChunk, ContextTokens, PromptContext, CloseContext),
    "edge", 0, False, "refuse",
    "An edge's hidden states, or the tokens behind them, on their way up (CE-CoLLM's first API).",
)  # fmt: skip
INFER = Topic(
    "infer", "node/{node}/infer/{edge}", (InferRequest,), "edge", 0, False, "refuse",
    "An edge asks the cloud for tokens (CE-CoLLM's second API).",
)  # fmt: skip
TOKEN = Topic(
    "token", "node/{edge}/token/{node}", (Lease, LeaseRefused, TokenReply, Nack), "node", 0, False, "refuse",
    "A cloud's answers to an edge.",
)  # fmt: skip

TOPICS: tuple[Topic, ...] = (
    VEHICLE_STATE, FRAME, ACK, RESULT, OUTCOME, NODE_STATE, TASK, POLICY, CONTEXT, INFER, TOKEN,
)  # fmt: skip


def topic_of(address: str) -> tuple[Topic, dict[str, str]] | None:
    """The table's row for an address, with the names in it; None for an address that is none of ours."""
    for topic in TOPICS:
        if (names := topic.parse(address)) is not None:
            return topic, names
    return None
