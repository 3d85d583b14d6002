"""Who may say and read what, by role: written once beside the topic table, and turned into a broker's access list.

A broker knows a client by its identity, the common name of its certificate. mosquitto's `pattern` rules hold for
every identity, so with them alone a vehicle could announce itself as a node and be sent other vehicles' pictures.
Therefore each identity has rules of its own, generated here; only what everybody may do is a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from .topics import (
    ACK,
    CONTEXT,
    FRAME,
    INFER,
    NODE_STATE,
    OUTCOME,
    POLICY,
    RESULT,
    TASK,
    TOKEN,
    TOPICS,
    VEHICLE_STATE,
    Topic,
)

IdentityRole = Literal["vehicle", "edge", "cloud", "learner", "recorder", "watcher"]
IDENTITY_ROLES: tuple[IdentityRole, ...] = get_args(IdentityRole)

# Where an identity may send a message to itself, to see whether its broker delivers: `roadside check --connect`.
CHECK_PREFIX = "roadside/check"


@dataclass(frozen=True, slots=True)
class Access:
    """Of one topic. senders: in their own name. readers: of what is addressed to them. onlookers: of all of it.

    A topic without an addressee, such as a node's state, is for onlookers alone; a reader of one reads its own.
    """

    topic: Topic
    senders: frozenset[IdentityRole]
    readers: frozenset[IdentityRole]
    onlookers: frozenset[IdentityRole]

    @property
    def addressee(self) -> str:
        """The placeholder that holds who the message is for; the sender's where it is for everybody."""
        return next((name for name in self.topic.placeholders if name != self.topic.sender), self.topic.sender)


def _access(topic: Topic, senders: str, *, readers: str = "", onlookers: str = "") -> Access:
    def roles(words: str) -> frozenset[IdentityRole]:
        return frozenset(role for role in IDENTITY_ROLES if role in words.split())

    return Access(topic, roles(senders), roles(readers), roles(onlookers))


# Recorders and watchers never send. What a watcher may not read is what no onlooker needs: the pictures and prompts
# of tasks, and the hidden states, which are as good as the prompts.
ACCESS: tuple[Access, ...] = (
    _access(VEHICLE_STATE, "vehicle", onlookers="recorder watcher"),
    _access(FRAME, "vehicle", onlookers="recorder watcher"),
    _access(ACK, "edge cloud", readers="vehicle", onlookers="recorder watcher"),
    _access(RESULT, "edge cloud", readers="vehicle", onlookers="recorder watcher"),
    _access(OUTCOME, "vehicle", onlookers="learner recorder watcher"),
    _access(NODE_STATE, "edge cloud", onlookers="vehicle edge recorder watcher"),
    _access(TASK, "vehicle", readers="edge cloud", onlookers="recorder"),
    _access(POLICY, "learner", readers="learner", onlookers="vehicle recorder watcher"),
    _access(CONTEXT, "edge", readers="cloud"),
    _access(INFER, "edge", readers="cloud"),
    _access(TOKEN, "cloud", readers="edge"),
)


def access_of(topic: Topic) -> Access:
    return _BY_NAME[topic.name]


_BY_NAME = {access.topic.name: access for access in ACCESS}
assert _BY_NAME.keys() == {topic.name for topic in TOPICS}, "a topic without access rules could be used by nobody"


def rules_of(fleet: str, name: str, role: IdentityRole) -> list[str]:
    """One identity's lines of a mosquitto access list."""
    rules = []
    for access in ACCESS:
        topic = access.topic
        if role in access.senders:
            rules.append(f"topic write {topic.filter(fleet, **{topic.sender: name})}")
        if role in access.onlookers:
            rules.append(f"topic read {topic.filter(fleet)}")
        elif role in access.readers:
            rules.append(f"topic read {topic.filter(fleet, **{access.addressee: name})}")
    return rules


def access_list(fleet: str, identities: Iterable[tuple[str, IdentityRole]]) -> str:
    """The access list of a fleet's mosquitto: whoever is not in it may do nothing but check its connection."""
    blocks = [
        "# Written by `roadside secure`, from the topic table; it is written anew with every change of the fleet.",
        f"pattern readwrite {CHECK_PREFIX}/%u",
    ]
    for name, role in identities:
        blocks.append("\n".join([f"\n# {role}", f"user {name}", *rules_of(fleet, name, role)]))
    return "\n".join(blocks) + "\n"
