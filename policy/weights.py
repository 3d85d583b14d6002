"""Weights on disk: one .npz with the network's arrays, the scaling of its inputs, and what they were trained on.

No pickle. Weights are refused that were trained on other features than this program computes.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import ModelError
from .features import FEATURE_SCHEMA
from .node_memory import INPUTS

_META = "meta"
_RETRAIN = "train it again with `roadside train policy`, or name another"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A scoring network. arrays: float32, named as in scorer.py; body and head layers, `mean` and `scale` of the
    inputs, `lowest` and `highest` of them met in training.

    prior_weight: of the expected utility in the score. environment: hash of the constants it was trained on.
    notes: how it was trained, for people.
    """

    arrays: dict[str, NDArray[np.float32]]
    prior_weight: float
    environment: str
    feature_schema: str = FEATURE_SCHEMA
    inputs: tuple[str, ...] = INPUTS
    notes: dict[str, Any] = field(default_factory=dict)


def bundled_weights(name: str) -> Path:
    """Where the package keeps the weights of one of its own policies."""
    return Path(str(resources.files("roadside.policy"))) / "weights" / f"{name}.npz"


def save_weights(path: Path, weights: Weights) -> None:
    """Write the file whole or not at all."""
    meta = {name: value for name, value in asdict(weights).items() if name != "arrays"}
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **{_META: np.array(json.dumps(meta))}, **weights.arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_weights(path: Path) -> Weights:
    """Raises ModelError for a file that is missing, damaged, not finite, or of other features than this program's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file[_META]))
            arrays = {name: file[name].astype(np.float32) for name in file.files if name != _META}
        weights = Weights(arrays, **(meta | {"inputs": tuple(meta["inputs"])}))
        fitting = _fits(weights)
    except FileNotFoundError:
        raise ModelError(f"no weights at {path}: {_RETRAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} holds no weights that can be read ({error}): {_RETRAIN}") from None
    if weights.feature_schema != FEATURE_SCHEMA or weights.inputs != INPUTS:
        raise ModelError(f"{path} was trained on other features than this program computes: {_RETRAIN}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ModelError(f"{path} holds weights that are no finite numbers: {_RETRAIN}")
    if not fitting:
        raise ModelError(f"{path} holds layers that do not fit together: {_RETRAIN}")
    return weights


def _fits(weights: Weights) -> bool:
    """Whether the layers have the shapes that scorer.py multiplies."""
    shapes = {name: array.shape for name, array in weights.arrays.items()}
    (width, inputs), (out, head) = shapes["body1.weight"], shapes["head2.weight"]
    return (
        inputs == len(weights.inputs)
        and out >= 1
        and shapes
        == {
            **dict.fromkeys(("mean", "scale", "lowest", "highest"), (inputs,)),
            "body1.weight": (width, inputs),
            "body1.bias": (width,),
            "body2.weight": (width, width),
            "body2.bias": (width,),
            "head1.weight": (head, 2 * width),
            "head1.bias": (head,),
            "head2.weight": (out, head),
            "head2.bias": (out,),
        }
    )
