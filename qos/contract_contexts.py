"""The part of the contract that is about contexts: whose positions a token was computed on, and when they are freed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..bus.context_digest import digest_of_sequence, digests_of_tokens
from .history import Event
from .violations import Violation, stopped_s

# A cloud looks for silent sessions four times within their time to live. On a machine with ten times as much to do as
# it has cores for, a process may not get its turn for seconds.
_EXPIRY_SHARE = 0.25
_LATE_S = 5.0

_USES = frozenset(("context.opened", "context.stored", "token.asked", "token.said", "token.unsaid"))


@dataclass(slots=True)
class _Sent:
    """What one edge has sent of one session. sequences: by roll-back, a digest for each position, None for a gap."""

    edge: str
    sequences: dict[int, list[bytes | None]] = field(default_factory=dict)
    contradictions: list[Event] = field(default_factory=list)

    def take(self, event: Event) -> None:
        fields = event.fields
        sequence = self._at(fields["rollback"], fields["kept"])
        digests = [bytes.fromhex(each) for each in fields["digests"]]
        end = fields["position"] + len(digests)
        sequence.extend([None] * (end - len(sequence)))
        known = sequence[fields["position"] : end]
        if any(old not in (None, new) for old, new in zip(known, digests, strict=True)):
            self.contradictions.append(event)
        sequence[fields["position"] : end] = digests

    def take_said(self, rollback: int, position: int, token: int) -> None:
        """A generating cloud goes on with its own tokens."""
        sequence = self.sequences.get(rollback)
        if sequence is not None and position == len(sequence):
            sequence += digests_of_tokens([token])

    def _at(self, rollback: int, kept: int) -> list[bytes | None]:
        if rollback not in self.sequences:
            earlier = [each for each in self.sequences if each < rollback]
            self.sequences[rollback] = self.sequences[max(earlier)][:kept] if earlier else []
        return self.sequences[rollback]


def broken_contexts(events: Sequence[Event], since_s: float, until_s: float) -> Iterable[Violation]:
    """Tokens that were computed on anything but what their edge had sent."""
    sent: dict[str, _Sent] = {}
    for event in events:
        if event.name == "context.sent":
            sent.setdefault(event.fields["session"], _Sent(event.process)).take(event)
    for event in events:
        if event.name != "token.said":
            continue
        why = _wrong(event, sent)
        if why is not None and since_s <= event.at_s <= until_s:
            yield Violation("wrong-context", event.fields["session"], why, _about(events, event.fields["session"]))
    for session, each in sent.items():
        if each.contradictions and since_s <= each.contradictions[0].at_s <= until_s:
            why = f"{each.edge} sent other content for a position that it had sent"
            yield Violation("wrong-context", session, why, tuple(each.contradictions))


def _wrong(said: Event, sent: dict[str, _Sent]) -> str | None:
    fields = said.fields
    source = sent.get(fields["session"])
    if source is None:
        return f"{said.process} said a token of a session of which nothing was sent"
    if source.edge != fields["edge"]:
        return f"{said.process} told {fields['edge']} a token of {source.edge}'s session"
    sequence = source.sequences.get(fields["rollback"], [])
    if len(fields["ran_on"]) != len(fields["tokens"]):
        return f"{said.process} does not tell what its tokens were computed on"
    for offset, (token, ran_on) in enumerate(zip(fields["tokens"], fields["ran_on"], strict=True)):
        up_to = fields["up_to"] + offset
        before = [each for each in sequence[:up_to] if each is not None]
        if len(before) < up_to:
            return f"the token after {up_to} positions was computed where {len(before)} had been sent"
        if digest_of_sequence(before) != ran_on:
            return f"the token after {up_to} positions was computed on others than {source.edge} had sent"
        if fields["generating"]:
            source.take_said(fields["rollback"], up_to, token)
    return None


def orphans(events: Sequence[Event], since_s: float, until_s: float) -> Iterable[Violation]:
    """Contexts that outlived the silence after which they should have been freed."""
    opened: dict[tuple[str, str], Event] = {}
    used_s: dict[tuple[str, str], float] = {}
    ended: dict[tuple[str, str], float] = {}
    stops: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.name in ("process.stopped", "process.continued"):
            stops[event.fields["target"]].append(event)
        dead = _life_over(event)
        if dead is not None:
            ended.update((key, event.at_s) for key in opened if key[0] == dead and key not in ended)
        if "session" not in event.fields:
            continue
        key = event.process, event.fields["session"]
        if event.name == "context.opened":
            opened[key] = event
            ended.pop(key, None)
        if event.name in _USES:
            used_s[key] = event.at_s
        elif event.name == "context.freed":
            ended[key] = event.at_s
    for (cloud, session), event in opened.items():
        ttl_s = event.fields["ttl_s"]
        silent_since_s = used_s[cloud, session]
        due_s = silent_since_s + ttl_s * (1 + _EXPIRY_SHARE) + _LATE_S
        ended_s = ended.get((cloud, session), until_s)
        due_s += stopped_s(stops[cloud], silent_since_s, ended_s)
        if ended_s > due_s and since_s <= due_s <= until_s:
            why = f"{cloud} kept it {ended_s - silent_since_s:.1f} s after the last word about it, beyond {ttl_s:g} s"
            yield Violation("orphan-context", session, why, _about(events, session))


def _life_over(event: Event) -> str | None:
    """Whose memory is gone."""
    if event.name == "process.began":
        return event.process
    return event.fields["target"] if event.name == "process.killed" else None


def _about(events: Iterable[Event], session: str) -> tuple[Event, ...]:
    return tuple(event for event in events if event.fields.get("session") == session)
