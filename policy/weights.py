"""Weights on disk: one .npz with the network's arrays, the scaling of its inputs, and what they were trained on.

No pickle. Weights are refused that were trained on other features than this program computes.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bus.errors import WeightsError
from .features import FEATURE_SCHEMA
from .node_memory import INPUTS
from .npz import ArchiveTooLarge, read_arrays

_META = "meta"
_LIMIT_BYTES = 4 * 1024 * 1024
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
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        file.write(encode_weights(weights))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def encode_weights(weights: Weights) -> bytes:
    """The content of such a file."""
    meta = {name: value for name, value in asdict(weights).items() if name != "arrays"}
    content = io.BytesIO()
    np.savez_compressed(content, **{_META: np.array(json.dumps(meta))}, **weights.arrays)  # pyright: ignore[reportArgumentType]
    return content.getvalue()


def load_weights(path: Path) -> Weights:
    """Raises WeightsError for a file that is missing, and as `decode_weights` does."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError("missing", f"no weights at {path}: {_RETRAIN}") from None
    except OSError as error:
        raise WeightsError("unreadable", f"cannot read {path} ({error.strerror}): {_RETRAIN}") from None
    return decode_weights(data, str(path))


def decode_weights(data: bytes, source: str) -> Weights:
    """Read what `encode_weights` wrote, or anybody else did. source: where it is from, for the message.

    Raises WeightsError with reason "unreadable", "too large", "other features", "not finite" or "misfit".
    """
    try:
        content = read_arrays(data, limit_bytes=_LIMIT_BYTES)
        meta = json.loads(str(content.pop(_META)))
        weights = Weights(content, **(meta | {"inputs": tuple(meta["inputs"])}))
        fitting, finite = _fits(weights), _finite(weights)
    except ArchiveTooLarge as error:
        raise WeightsError("too large", f"{source} holds {error}: {_RETRAIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError("unreadable", f"{source} holds no weights that can be read ({error}): {_RETRAIN}") from None
    if weights.feature_schema != FEATURE_SCHEMA or weights.inputs != INPUTS:
        told = f"{source} was trained on other features than this program computes: {_RETRAIN}"
        raise WeightsError("other features", told)
    if not finite:
        raise WeightsError("not finite", f"{source} holds weights that are no finite numbers: {_RETRAIN}")
    if not fitting:
        raise WeightsError("misfit", f"{source} holds layers that do not fit together: {_RETRAIN}")
    return weights


def _finite(weights: Weights) -> bool:
    numbers = [*weights.arrays.values(), np.array(weights.prior_weight, float)]
    return all(np.isfinite(array).all() for array in numbers)


def _fits(weights: Weights) -> bool:
    """Whether the layers have the shapes that scorer.py multiplies."""
    shapes = {name: array.shape for name, array in weights.arrays.items()}
    (width, inputs), (out, head) = shapes["body1.weight"], shapes["head2.weight"]
    return (
        inputs == len(weights.inputs)
        and out >= 1
        and bool((weights.arrays["scale"] > 0).all())
        and bool((weights.arrays["lowest"] <= weights.arrays["highest"]).all())
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
