"""What a learner publishes, numbered: vehicles take nothing older than what they have of it.

The newest number stands in the learner's folder and, retained, at the broker, so that neither a new folder nor a new
broker makes it count from the beginning.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from ..bus.errors import ConfigurationError
from ..bus.messages import PolicyWeights
from ..policy.weights import Weights, encode_weights

PUBLISHED_FILE = "published.json"


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """digest: of the archive. trained_tasks: whose outcomes have been learnt from, over all of the learner's lives."""

    version: int = 0
    digest: str = ""
    trained_tasks: int = 0


class Publications:
    """retained: what the broker has of this learner, None for nothing. Raises ConfigurationError for a damaged file."""

    def __init__(self, folder: Path, policy: str, retained: PolicyWeights | None) -> None:
        self._path = folder / PUBLISHED_FILE
        self._policy = policy
        self._last = self._read()
        if retained is not None and retained.version > self._last.version:
            self._last = Published(retained.version, _digest(retained.weights), self._last.trained_tasks)

    @property
    def version(self) -> int:
        return self._last.version

    @property
    def trained_tasks(self) -> int:
        return self._last.trained_tasks

    def message(self, weights: Weights, *, trained_tasks: int, note: str) -> PolicyWeights:
        """The message that carries these weights: the last version where they are the same, the next one otherwise."""
        archive = encode_weights(weights)
        digest = _digest(archive)
        version = self._last.version + (digest != self._last.digest)
        self._write(Published(version, digest, trained_tasks))
        return PolicyWeights(self._policy, version, weights.feature_schema, archive, trained_tasks, note)

    def _read(self) -> Published:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Published)
        except FileNotFoundError:
            return Published()
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError(
                f"{self._path} is damaged ({error}): remove it, and the learner counts on from what the broker has"
            ) from None

    def _write(self, published: Published) -> None:
        unfinished = self._path.with_name(f".{self._path.name}.new")
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(published))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
        self._last = published


def _digest(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()[:16]
