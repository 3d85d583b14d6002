"""What a cloud keeps of one answer in the making: what came in of it, the caches of what was run, the tokens it gave.

Pure state, without clock or network. A position comes as its hidden state at the cut (CE-CoLLM, section III-C), as a
token id, or as one of those of a prompt that the cloud itself encodes. All of it arrives in any order, more than once,
or not at all; it is run in the order of the positions, all that waits in one batch, when a token is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bus.context_digest import digest_of_sequence, digests_of_prompt, digests_of_rows, digests_of_tokens
from ..bus.messages import NackReason
from ..models.prompt_layout import LaidOutPrompt
from ..models.sampling import Sampling
from ..models.stages import StageSession
from .arrivals import Arrivals
from .parts import Batch, Chosen, CloudParts

# Of a token's or a row's entry in a dictionary, and of a token that was given.
_BYTES_PER_ENTRY = 100
_BYTES_PER_NUMBER = 4

Taken = Literal["new", "duplicate", "stale", "conflict"]


@dataclass(frozen=True, slots=True)
class Computed:
    """One token of the whole model: what it took to compute the batch that it was in, and to come to its turn.

    ran_on: digest of the sequence that the caches held, where that is told.
    """

    token: int
    confidence: float
    queue_ms: float
    compute_ms: float
    ran_on: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tokens for a question: see `TokenReply`. ran_on: for each token, as in `Computed`."""

    tokens: tuple[int, ...]
    confidences: tuple[float, ...]
    n_accepted: int
    queue_ms: float
    compute_ms: float
    ran_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Positions [first, end) are wanted before a token can be computed, or some of them are."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The context was given up, and why."""

    reason: NackReason


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is there. wanted: after how many positions each a token is to be computed, in rising order."""

    wanted: tuple[int, ...]


# busy: another batch of the same context is being computed, or its prompt encoded. stale: of before a roll-back.
# overtaken: later positions were run since without this token, so that nobody waits for it.
Standing: TypeAlias = Verdict | Missing | Refused | Ready | Literal["busy", "stale", "overtaken"]


class Context:
    """One session of one edge.

    rollback: how often its sequence was cut back, as far as is known here. channel_scales, position_axes: of what came
    in, the same for all of it; None: nothing has come yet. energy_j: spent on it and not told yet.
    tells_ran_on: whether each token comes with a digest of what it was computed on.
    """

    def __init__(self, parts: CloudParts, *, tells_ran_on: bool = False) -> None:
        self.rollback = 0
        self.computing = False
        self.refused: NackReason | None = None
        self.channel_scales: NDArray[np.float32] | None = None
        self.position_axes: int | None = None
        self.energy_j = 0.0
        self._parts = parts
        self._rest: StageSession = parts.rest.session()
        self._first: StageSession | None = None
        self._cache_bytes = self._growth_bytes = 0
        # The first so many positions are in the rest's cache, or will be after the batch under way; and how many of
        # them in the first stage's, which has no more than those that did not come as hidden states.
        self._positions_run = self._first_run = 0
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._position_ids: dict[int, tuple[int, ...]] = {}
        self._tokens: dict[int, int] = {}
        self._prompt_positions = 0
        self._prompt: Tensor | LaidOutPrompt | None = None
        # Of the positions in the rest's cache: what was really run there.
        self._ran: list[bytes] | None = [] if tells_ran_on else None
        self._prompt_content = b""
        # Of all that arrived, run or not: tells a repetition from a contradiction.
        self._arrived = Arrivals()
        self._given: dict[int, Computed] = {}
        self._asked: set[int] = set()
        # Of all that is asked, once anything was.
        self._sampling: Sampling | Literal["greedy"] | None = None
        self._freed = False

    @property
    def memory_bytes(self) -> int:
        """Memory held, to a few per cent; while a batch is being computed, with what its caches will have grown."""
        waiting_bytes = sum(row.nbytes for row in self._rows.values()) + self._prompt_bytes
        entries = len(self._rows) + len(self._tokens) + len(self._given)
        cache_bytes = self._cache_bytes + self._growth_bytes
        return waiting_bytes + cache_bytes + self._arrived.nbytes + _BYTES_PER_ENTRY * entries

    def bookkeeping_bytes(self, up_to: int, entries: int) -> int:
        """What so many more entries take, where the sequence becomes so long, beside their content."""
        return max(0, up_to * Arrivals.DIGEST_BYTES - self._arrived.nbytes) + _BYTES_PER_ENTRY * entries

    @property
    def _prompt_bytes(self) -> int:
        """Of the embeddings of a prompt that was not run, encoded or not."""
        if self._positions_run >= self._prompt_positions:
            return 0
        expected_bytes = self._prompt_positions * self._parts.rest.hidden_size * _BYTES_PER_NUMBER
        return max(expected_bytes, _embedding_bytes(self._prompt))

    # What comes in

    def take_rows(
        self,
        rows: NDArray[np.float32],
        *,
        position: int,
        rollback: int,
        kept: int,
        position_ids: Sequence[tuple[int, ...]] = (),
    ) -> Taken:
        """Keep hidden states [positions, hidden_size] from `position` on. See `ContextChunk` for the rest.

        Nothing is taken of what is stale or in conflict.
        """
        taken = self._arrive(digests_of_rows(rows), position, rollback, kept)
        if not isinstance(taken, list):
            return taken
        for each in taken:
            self._rows[each] = rows[each - position].copy()
            if position_ids:
                self._position_ids[each] = tuple(axis[each - position] for axis in position_ids)
        return "new" if taken else "duplicate"

    def take_tokens(self, tokens: Sequence[int], *, position: int, rollback: int, kept: int) -> Taken:
        """Keep token ids. See `ContextTokens`."""
        taken = self._arrive(digests_of_tokens(tokens), position, rollback, kept)
        if not isinstance(taken, list):
            return taken
        for each in taken:
            self._tokens[each] = tokens[each - position]
        return "new" if taken else "duplicate"

    def take_prompt(self, positions: int, content: bytes, *, rollback: int, kept: int) -> Taken:
        """Expect a prompt, which `encoded` brings; nothing can be run before. content: what it is known again by."""
        taken = self._arrive(digests_of_prompt(content, positions), 0, rollback, kept)
        if not isinstance(taken, list):
            return taken
        if taken and len(taken) < positions:
            return "conflict"
        if taken:
            self._prompt_positions = positions
            self._prompt_content = content if self._ran is not None else b""
        return "new" if taken else "duplicate"

    def encoded(self, prompt: Tensor | LaidOutPrompt, rollback: int) -> None:
        """The prompt that was expected; none any more where the sequence was cut back, or given up, meanwhile."""
        if not self._freed and rollback == self.rollback and self._prompt_positions:
            self._prompt = prompt

    def append(self, token: int, position: int) -> Taken:
        """The sequence goes on with a token of the cloud's own."""
        return self.take_tokens([token], position=position, rollback=self.rollback, kept=0)

    # What is asked

    def samples_with(self, sampling: Sampling | None) -> bool:
        """Whether the context's tokens are chosen in this way, which its first question decides."""
        wanted = sampling or "greedy"
        if self._sampling is None:
            self._sampling = wanted
        return self._sampling == wanted

    def take_energy_j(self) -> float:
        """What was spent since this was last asked."""
        energy_j, self.energy_j = self.energy_j, 0.0
        return energy_j

    def look(self, *, rollback: int, up_to: int, claimed: Sequence[int] = ()) -> Standing:
        """How things stand with the tokens after `up_to` positions, or those that are claimed to come before.

        They are remembered: a batch that runs over their positions computes them, whoever it was begun for.
        """
        if self.refused is not None:
            return Refused(self.refused)
        if rollback < self.rollback:
            return "stale"
        if rollback > self.rollback:
            # Nothing has told yet what the roll-back left standing, so perhaps nothing.
            return Missing(0, up_to)
        first_wanted = up_to - max(0, len(claimed) - 1)
        self._asked.update(range(first_wanted, up_to + 1))
        verdict = self._verdict(first_wanted, up_to, claimed)
        if verdict is not None:
            return verdict
        wanted = tuple(each for each in range(first_wanted, up_to + 1) if each not in self._given)
        if wanted[0] <= self._positions_run:
            return "busy" if self.computing else "overtaken"
        missing = self.missing(up_to)
        if missing is not None:
            return missing
        if self.computing or (self._positions_run < self._prompt_positions and self._prompt is None):
            return "busy"
        return Ready(wanted) if self._is_runnable(up_to) else Refused("unusable")

    def missing(self, up_to: int) -> Missing | None:
        """The shortest stretch that holds every position below `up_to` which has not arrived; None where all have."""
        absent = [position for position in range(self._positions_run, up_to) if position not in self._arrived]
        return Missing(absent[0], absent[-1] + 1) if absent else None

    # What is computed

    def still_wanted(self, wanted: Iterable[int]) -> tuple[int, ...]:
        """Those of some tokens that were not run meanwhile, with all others asked for on the way; in rising order."""
        behind = {each for each in wanted if each > self._positions_run}
        last = max(behind, default=0)
        return tuple(sorted(behind | {each for each in self._asked if self._positions_run < each <= last}))

    def growth_bytes(self, up_to: int) -> int:
        """By how much the caches will have grown after a batch up to there."""
        first = sum(position not in self._rows for position in range(self._positions_run, up_to))
        new = up_to - self._positions_run
        return new * self._parts.rest_bytes_per_position + first * self._parts.first_bytes_per_position

    def begin(self, wanted: Sequence[int]) -> Batch:
        """The batch that computes these tokens; only where they are `Ready`. `finish` follows."""
        up_to, keep, keep_first = wanted[-1], self._positions_run, self._first_run
        self._growth_bytes = self.growth_bytes(up_to)
        behind = next((position for position in range(keep, up_to) if position in self._rows), up_to)
        prompt = self._prompt if keep < self._prompt_positions else None
        tokens = tuple(self._tokens[each] for each in range(max(keep, self._prompt_positions), behind))
        if behind > keep and self._first is None:
            assert self._parts.beginning is not None, "only who can begin a sequence is given tokens"
            self._first = self._parts.beginning.first.session()
        ids = [self._position_ids[each] for each in range(behind, up_to) if each in self._position_ids]
        batch = Batch(
            rest=self._rest,
            keep=keep,
            wanted=tuple(wanted),
            hidden=np.stack([self._rows[each] for each in range(behind, up_to)]) if behind < up_to else None,
            position_ids=np.array(ids, np.int64).T if ids else None,
            first=self._first,
            keep_first=keep_first,
            prompt=prompt,
            tokens=tokens,
            sampling=self._sampling if isinstance(self._sampling, Sampling) else None,
        )
        self._note_run(batch)
        self.computing = True
        self._positions_run = up_to
        if behind > keep:
            self._first_run = behind
        return batch

    def _note_run(self, batch: Batch) -> None:
        if self._ran is None:
            return
        del self._ran[batch.keep :]
        if batch.prompt is not None:
            self._ran += digests_of_prompt(self._prompt_content, self._prompt_positions)
        self._ran += digests_of_tokens(batch.tokens)
        if batch.hidden is not None:
            self._ran += digests_of_rows(batch.hidden)

    def _ran_on(self, up_to: int) -> str:
        return "" if self._ran is None else digest_of_sequence(self._ran[:up_to])

    def finish(
        self, batch: Batch, chosen: Sequence[Chosen] | None, *, queue_ms: float = 0.0, compute_ms: float = 0.0
    ) -> None:
        """The batch was run, or (None) never will be. More may have come meanwhile, a roll-back or the end too."""
        self.computing = False
        self._growth_bytes = 0
        if self._freed:
            self._free_stages()
            return
        if chosen is None:
            self._positions_run = min(self._positions_run, batch.keep)
            self._first_run = min(self._first_run, batch.keep_first)
            return
        self._cache_bytes = self._rest.memory_bytes + (self._first.memory_bytes if self._first is not None else 0)
        self._forget(range(batch.keep, self._positions_run))
        if self._positions_run >= self._prompt_positions:
            self._drop_prompt()
        for up_to, each in zip(batch.wanted, chosen, strict=True):
            # Else a roll-back has cut below it, and the token is one of a sequence that is no more.
            if up_to <= self._positions_run:
                self._given[up_to] = Computed(each.token, each.confidence, queue_ms, compute_ms, self._ran_on(up_to))

    # The end

    def refuse(self, reason: NackReason) -> None:
        """Give the context up: its memory is freed at once, and whoever asks is told why."""
        self.refused = reason
        self.free()

    def free(self) -> None:
        """Zero and forget everything; what a batch under way uses, when that is finished.

        Copies that torch made on the way, such as that of a cache which grew, were returned to its allocator as they
        were.
        """
        self._freed = True
        self._forget(list(self._rows))
        self._tokens.clear()
        self._arrived.clear()
        self._given.clear()
        self._asked.clear()
        self._cache_bytes = self._prompt_positions = 0
        if not self.computing:
            self._free_stages()

    def _free_stages(self) -> None:
        self._drop_prompt()
        self._rest.free()
        if self._first is not None:
            self._first.free()

    @torch.inference_mode()
    def _drop_prompt(self) -> None:
        if self._prompt is not None:
            embeddings = self._prompt.embeddings if isinstance(self._prompt, LaidOutPrompt) else self._prompt
            embeddings.zero_()
            self._prompt = None

    def _arrive(self, digests: list[bytes], position: int, rollback: int, kept: int) -> list[int] | Taken:
        """The positions that are new; or why nothing is taken."""
        if rollback < self.rollback:
            return "stale"
        if rollback > self.rollback:
            # Who missed a roll-back in between does not know how deep that one cut.
            self._roll_back(kept if rollback == self.rollback + 1 else 0)
            self.rollback = rollback
        return self._arrived.add(digests, position)

    def _roll_back(self, kept: int) -> None:
        if kept < self._prompt_positions:
            # A prompt is run as a whole.
            kept = self._prompt_positions = 0
            if not self.computing:
                self._drop_prompt()
            self._prompt = None
        self._arrived.cut(kept)
        self._forget([position for position in (*self._rows, *self._tokens) if position >= kept])
        self._positions_run = min(self._positions_run, kept)
        self._first_run = min(self._first_run, kept)
        self._given = {up_to: given for up_to, given in self._given.items() if up_to <= kept}
        self._asked = {up_to for up_to in self._asked if up_to <= kept}

    def _verdict(self, first_wanted: int, up_to: int, claimed: Sequence[int]) -> Verdict | None:
        """What is known, where that is enough: nothing counts behind the first claim that is wrong."""
        tokens: list[Computed] = []
        n_accepted = 0
        for position in range(first_wanted, up_to + 1):
            given = self._given.get(position)
            if given is None:
                return None
            tokens.append(given)
            if claimed and given.token != claimed[position - first_wanted]:
                break
            n_accepted += bool(claimed)
        newest = tokens[-1]
        return Verdict(
            tokens=tuple(each.token for each in tokens),
            confidences=tuple(each.confidence for each in tokens),
            n_accepted=n_accepted,
            queue_ms=newest.queue_ms,
            compute_ms=newest.compute_ms,
            ran_on=tuple(each.ran_on for each in tokens if each.ran_on),
        )

    def _is_runnable(self, up_to: int) -> bool:
        """Whether the first stage has, or will have, all that comes before every position it is to run."""
        first_run, hidden_before = self._first_run, False
        for position in range(self._positions_run, up_to):
            if position in self._rows:
                hidden_before = True
            elif hidden_before or first_run != position:
                return False
            else:
                first_run += 1
        return True

    def _forget(self, positions: Iterable[int]) -> None:
        for position in positions:
            row = self._rows.pop(position, None)
            if row is not None:
                row.fill(0)
            self._tokens.pop(position, None)
            self._position_ids.pop(position, None)


def _embedding_bytes(prompt: Tensor | LaidOutPrompt | None) -> int:
    if prompt is None:
        return 0
    if not isinstance(prompt, LaidOutPrompt):
        return prompt.nbytes
    visual = prompt.visual.by_layer if prompt.visual is not None else ()
    return prompt.embeddings.nbytes + sum(each.nbytes for each in visual)
