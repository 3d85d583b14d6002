"""Records of what an unsplit model computed, by which a process proves the stages that it holds.

A record is kept beside the model's files, or in the user's cache folder where they must not be touched. It is only a
shortcut: stages that do not agree with it are compared with the unsplit model itself, which is then read once more
(proofs.py). A record is for one model, its exit layers, one prompt and the versions of the libraries; others are passed
over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import structlog
import torch
from torch import Tensor

from .reference import Reference

# Not *.safetensors, though it is that format: those are hashed as the model's own.
RECORD_FILE = "split_check.st"

_FORMAT = 1
_log = structlog.get_logger()


def record_key(digest: str, exit_layers: tuple[int, ...], inputs: dict[str, Tensor]) -> str:
    """What a record is for, in 64 characters; digest: the model's."""
    key = hashlib.sha256()
    # What stands behind a "+" only names the build, such as "+cpu".
    versions = [version(library).partition("+")[0] for library in ("torch", "transformers")]
    key.update(repr((_FORMAT, digest, exit_layers, versions)).encode())
    for name, tensor in sorted(inputs.items()):
        key.update(f"{name} {tuple(tensor.shape)}".encode())
        key.update(tensor.contiguous().numpy().tobytes())
    return key.hexdigest()


def find_record(folder: Path | None, key: str) -> Reference | None:
    """The record of this key beside the model in `folder`, or else in the cache; None where there is no sound one."""
    for path in _paths(folder, key):
        if (record := _read(path, key)) is not None:
            return record
    return None


def keep_record(folder: Path | None, key: str, reference: Reference) -> None:
    """Write a record where that can be done, in place of an older one. folder: None where nothing may be written."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in vars(reference).items() if tensor is not None}
    content = save(tensors, {"key": key})
    for path in _paths(folder, key):
        with contextlib.suppress(OSError):
            _replace(path, content)
            return
    _log.debug("the record of a split could not be kept", key=key[:12])


def cache_folder() -> Path:
    """Where records lie that are not beside their models."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "roadside" / "splits"


def _paths(folder: Path | None, key: str) -> Iterator[Path]:
    if folder is not None:
        yield folder / RECORD_FILE
    with contextlib.suppress(RuntimeError):  # nobody's home
        yield cache_folder() / f"{key}.st"


def _read(path: Path, key: str) -> Reference | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no dictionary
        record = Reference(**{"position_ids": None, **tensors})
        return record if _is_sound(record) else None
    except (OSError, SafetensorError, TypeError, ValueError, IndexError):
        return None


def _is_sound(record: Reference) -> bool:
    """Whether the shapes fit each other."""
    tokens = record.continuation.shape[0]
    return (
        (record.after_first.ndim, record.after_second.ndim, record.last_logits.ndim) == (3, 3, 1)
        and record.prompt_positions > 0
        and record.after_second.shape[1] == len(record.likeliest) == 1 + tokens
        and record.after_second.shape[2] == record.after_first.shape[2]
        and (record.position_ids is None or record.position_ids.shape[1] == record.after_first.shape[1])
        and record.continuation.dtype == record.likeliest.dtype == torch.int64
    )


def _replace(path: Path, content: bytes) -> None:
    """At once, so that whoever reads it meanwhile sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise
