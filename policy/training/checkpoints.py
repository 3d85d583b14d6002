"""States of learning on disk: tensors, numbers and names, replaced as a whole, read back without unpickling code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from ...bus.errors import ConfigurationError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """At every moment the file holds either the last state or this one."""
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """What was saved last; None where nothing was. Raises ConfigurationError for a damaged file."""
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise ConfigurationError(f"{path} is damaged ({error}): remove {path.parent} to begin anew") from None
