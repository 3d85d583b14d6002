"""What an edge has sent of one answer's context, kept so that any of it can be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..bus.context_digest import content_of_prompt, digests_of_prompt, digests_of_rows, digests_of_tokens
from ..bus.messages import ContextChunk, ContextTokens, PromptContext
from ..models.context_codec import ContextPacker, PackedRows, bytes_per_position, unpack_rows
from ..models.questions import Question

ContextMessage: TypeAlias = ContextChunk | ContextTokens | PromptContext

# Of an id, for the payload that is reported.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive positions in one form. content: hidden states, token ids, or the question that they are.

    position_ids: int64 [axes, positions], of hidden states that have any.
    """

    position: int
    end: int
    content: PackedRows | tuple[int, ...] | Question
    position_ids: NDArray[np.int64] | None = None

    @property
    def payload_bytes(self) -> int:
        match self.content:
            case PackedRows():
                return self.content.nbytes
            case Question():
                return sum(len(frame) for frame in self.content.frames) + len(self.content.prompt.encode())
            case _:
                return len(self.content) * _BYTES_PER_TOKEN

    def part(self, first: int, end: int) -> Piece:
        """Its positions in [first, end), of which it has some; a question only ever as a whole."""
        if isinstance(self.content, Question):
            return self
        first, end = max(first, self.position), min(end, self.end)
        cut = slice(first - self.position, end - self.position)
        ids = None if self.position_ids is None else self.position_ids[:, cut]
        return replace(self, position=first, end=end, content=self.content[cut], position_ids=ids)


class SentContext:
    """One session's context, as far as it stands.

    packer: of its hidden states. hidden_size: their width. chunk_bytes: the largest payload of one message.
    rollback, kept: how often, and to how many positions lately, it was cut back.
    """

    def __init__(self, *, packer: ContextPacker, hidden_size: int, chunk_bytes: int) -> None:
        self.rollback = self.kept = 0
        self._packer = packer
        self._per_message = max(1, chunk_bytes // bytes_per_position(packer.dtype, hidden_size))
        self._pieces: list[Piece] = []
        self._has_sent_scales = False

    @property
    def positions(self) -> int:
        return self._pieces[-1].end if self._pieces else 0

    def add(self, piece: Piece) -> None:
        """Raises ValueError for a piece that does not follow what stands."""
        if piece.position != self.positions:
            raise ValueError(f"position {piece.position} goes up where {self.positions} is next")
        self._pieces.append(piece)

    def roll_back(self, positions: int) -> None:
        """Only the first so many positions stand."""
        self.rollback += 1
        self.kept = positions
        self._pieces = [piece.part(0, positions) for piece in self._pieces if piece.position < positions]

    def messages(self, session: str, first: int, end: int, *, again: bool = False) -> Iterator[ContextMessage]:
        """Positions [first, end), in as few messages as can be. again: the cloud may have none of them."""
        wanted = [piece.part(first, end) for piece in self._pieces if piece.position < end and piece.end > first]
        for piece in _joined(wanted):
            match piece.content:
                case PackedRows():
                    yield from self._chunks(session, piece, piece.content, again=again)
                case Question():
                    yield self._prompt(session, piece, piece.content)
                case tokens:
                    yield ContextTokens(
                        session=session,
                        rollback=self.rollback,
                        position=piece.position,
                        tokens=tokens,
                        kept=self.kept,
                    )

    def _chunks(self, session: str, piece: Piece, rows: PackedRows, *, again: bool) -> Iterator[ContextChunk]:
        for start in range(0, len(rows), self._per_message):
            part = slice(start, start + self._per_message)
            ids = () if piece.position_ids is None else tuple(map(tuple, piece.position_ids[:, part].tolist()))
            yield ContextChunk(
                session=session,
                rollback=self.rollback,
                position=piece.position + start,
                kept=self.kept,
                position_ids=ids,
                **self._packer.fields(rows[part], with_channels=again or not self._has_sent_scales),
            )
            self._has_sent_scales = True

    def _prompt(self, session: str, piece: Piece, question: Question) -> PromptContext:
        return PromptContext(
            session=session,
            rollback=self.rollback,
            positions=piece.end,
            prompt=question.prompt,
            frames=question.frames,
            telemetry=question.telemetry,
            kept=self.kept,
        )


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Consecutive pieces of the same form as one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        match (last.content if last is not None else None), piece.content:
            case PackedRows() as before, PackedRows() as rows:
                joined[-1] = _with(joined[-1], piece, PackedRows.joined([before, rows]))
            case tuple() as before, tuple() as tokens:
                joined[-1] = _with(joined[-1], piece, (*before, *tokens))
            case _:
                joined.append(piece)
    return joined


def _with(first: Piece, second: Piece, content: PackedRows | tuple[int, ...]) -> Piece:
    ids = [each.position_ids for each in (first, second) if each.position_ids is not None]
    return Piece(first.position, second.end, content, np.concatenate(ids, axis=1) if ids else None)


def digests_in(
    message: ContextMessage, hidden_size: int, channel_scales: NDArray[np.float32] | None
) -> tuple[int, list[bytes]]:
    """A message's first position, and a digest for each of its positions, of what the cloud will read there."""
    match message:
        case ContextChunk():
            return message.position, digests_of_rows(unpack_rows(message, hidden_size, channel_scales))
        case ContextTokens():
            return message.position, digests_of_tokens(message.tokens)
        case PromptContext():
            content = content_of_prompt(message.prompt, message.telemetry, message.frames)
            return 0, digests_of_prompt(content, message.positions)
