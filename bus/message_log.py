"""What one process heard and said, written down as it goes, so that the process can be replayed (replay/).

    ROADSIDE_MESSAGES=FOLDER roadside edge --name edge-1     writes FOLDER/edge-1.messages

Off unless the variable is set. Kept is what a replay needs and no more: of a node the tasks that it was given and the
answers that it sent, of a vehicle what it heard of nodes, the tasks that it made, where it sent them, and how they
ended. A node's log holds the vehicles' pictures and is to be kept as such.

A record is 4 bytes of length, big-endian, and as many of MessagePack; it goes out in one write to a file opened for
appending, so that a process which is killed leaves whole records, and at most one torn one, which is left out. A log
that is to be kept may be packed with gzip; vehicles' shrink to a sixth.
"""

from __future__ import annotations

import gzip
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct, structs

from .configuration import MemberConfiguration
from .defaults import MESSAGES_VARIABLE
from .errors import RunError
from .messages import Envelope, Role, Task
from .topics import ACK, NODE_STATE, OUTCOME, POLICY, RESULT, TASK, Topic, topic_of

LOG_VERSION = 1
SUFFIX = ".messages"
# Of one that was packed with gzip to be kept.
PACKED_SUFFIX = ".gz"
# What a replay feeds in, by role, and what it compares.
_HEARD: dict[Role, tuple[Topic, ...]] = {
    "vehicle": (NODE_STATE, ACK, RESULT, POLICY),
    "edge": (TASK,),
    "cloud": (TASK,),
}
_SAID: dict[Role, tuple[Topic, ...]] = {"vehicle": (TASK, OUTCOME), "edge": (RESULT,), "cloud": (RESULT,)}
# In place of a picture that a vehicle sent: the node's own log has it.
_NO_PICTURE = b"\xff\xd8\xff\xd9"
# Where a fleet is reached, and with what secrets, is nothing that a replay needs.
_LEFT_OUT = ("broker", "tls", "video", "journal", "metrics", "api_key_env", "wait_for_broker_s")
_LENGTH_BYTES = 4


class Life(Struct, frozen=True, tag="life"):
    """The process began. configuration: its keys and values as JSON, without addresses and secrets."""

    version: int
    role: Role
    name: str
    boot_id: str
    at_s: float
    configuration: str


class Heard(Struct, frozen=True, tag="heard"):
    """A message arrived. Times are seconds of the process's monotonic clock."""

    at_s: float
    address: str
    payload: bytes


class Said(Struct, frozen=True, tag="said"):
    """A message was given to the connection."""

    at_s: float
    address: str
    payload: bytes


class Created(Struct, frozen=True, tag="created"):
    """A vehicle began with a task. created_s: when it was made; frame_bytes: of its pictures, the oldest first.

    action, justification: the log's own words for the moment; None where it has none.
    """

    at_s: float
    created_s: float
    created_at_s: float
    task_id: str
    kind: str
    clip: str
    moment_s: float
    telemetry: dict[str, float]
    frame_bytes: tuple[int, ...]
    action: str | None = None
    justification: str | None = None


Record = Life | Heard | Said | Created

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class Tap(Protocol):
    """What a connection shows everything to."""

    def heard(self, address: str, payload: bytes) -> None: ...

    def said(self, topic: Topic, address: str, envelope: Envelope[Any], payload: bytes) -> None: ...


class MessageLog:
    """One process's log, open for appending. Closed with its process."""

    def __init__(self, folder: Path, role: Role, configuration: MemberConfiguration, boot_id: str) -> None:
        """Raises RunError where the folder cannot be written to."""
        self._role: Role = role
        try:
            # It shows what vehicles saw: nobody but the fleet's user has a look.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"{configuration.name}{SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise RunError(
                f"cannot write messages to {folder} ({error.strerror}): give {MESSAGES_VARIABLE} a folder that can be"
                " written"
            ) from None
        kept = {key: value for key, value in msgspec.to_builtins(configuration).items() if key not in _LEFT_OUT}
        told = msgspec.json.encode(kept).decode()
        self._write(Life(LOG_VERSION, role, configuration.name, boot_id, time.monotonic(), told))

    @classmethod
    def of_process(cls, role: Role, configuration: MemberConfiguration, boot_id: str) -> MessageLog | None:
        """Where the environment says; None where it does not. Raises as the constructor."""
        folder = os.environ.get(MESSAGES_VARIABLE)
        return cls(Path(folder), role, configuration, boot_id) if folder else None

    def heard(self, address: str, payload: bytes) -> None:
        found = topic_of(address)
        if found is not None and found[0] in _HEARD[self._role]:
            self._write(Heard(time.monotonic(), address, payload))

    def said(self, topic: Topic, address: str, envelope: Envelope[Any], payload: bytes) -> None:
        if topic not in _SAID[self._role]:
            return
        if isinstance(envelope.body, Task):
            task = structs.replace(envelope.body, frames=(_NO_PICTURE,) * len(envelope.body.frames))
            payload = _encoder.encode(structs.replace(envelope, body=task))
        self._write(Said(time.monotonic(), address, payload))

    def created(self, task: Created) -> None:
        self._write(task)

    def _write(self, record: Record) -> None:
        content = _encoder.encode(record)
        os.write(self._file, len(content).to_bytes(_LENGTH_BYTES, "big") + content)


class LoggedLife(Struct, frozen=True):
    """One life of a process, as it was recorded. records: in the order in which they happened."""

    begun: Life
    records: tuple[Heard | Said | Created, ...]


def read_lives(path: Path) -> list[LoggedLife]:
    """A process's lives, the oldest first. Raises RunError where the file is none of ours, or of another version."""
    lives: list[tuple[Life, list[Heard | Said | Created]]] = []
    for record in _records(path):
        if isinstance(record, Life):
            if record.version != LOG_VERSION:
                raise RunError(f"{path} is of version {record.version}, this roadside reads {LOG_VERSION}: record anew")
            lives.append((record, []))
        elif lives:
            lives[-1][1].append(record)
        else:
            raise RunError(f"{path} does not begin with a process: it is no recording of messages, or was cut")
    return [LoggedLife(life, tuple(records)) for life, records in lives]


def _records(path: Path) -> Iterator[Record]:
    try:
        content = path.read_bytes()
        if path.suffix == PACKED_SUFFIX:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"cannot read {path} ({error}): give a run that was recorded with messages") from None
    at = 0
    while at + _LENGTH_BYTES <= len(content):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(content[at:begin], "big")
        if at > len(content):
            return  # torn by the process's death
        try:
            yield _decoder.decode(content[begin:at])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is no recording of messages ({error}): give what a process has written") from None
