"""Where a fine-tuning stands, on disk, so that a run that was killed goes on as if nothing had happened.

Beside the folder that is to be written lies `<folder>.partial`:

    settings.json   what is being trained on what, and how; another run does not go on from here
    frames/         the moments as JPEGs
    state/          of the newest checkpoint: what was learnt, the optimiser's moments, and how far it is
    best.safetensors   what was learnt when the validation loss was lowest

All of it is safetensors and JSON. Whatever is random at an update is drawn from generators seeded by it, so there is
no other state.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bus.errors import ConfigurationError

SETTINGS_FILE = "settings.json"
WEIGHTS_FILE = "learnt.safetensors"
OPTIMISER_FILE = "optimiser.safetensors"
PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """losses: of every update so far, by voice; validations: (update, loss by voice)."""

    losses: list[dict[str, float]] = field(default_factory=list)
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @property
    def updates(self) -> int:
        return len(self.losses)

    @property
    def best_update(self) -> int:
        """After which of the validated updates the whole model's loss was lowest."""
        return min(self.validations, key=lambda validation: validation[1]["full"])[0]


class PartialRun:
    """The folder of one unfinished run."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Make the folder, or go on in it. Raises ConfigurationError where it belongs to a run of another kind."""
        self.folder = folder
        path = folder / SETTINGS_FILE
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(path, json.dumps(settings, indent=1))
            return
        try:
            begun: dict[str, Any] = json.loads(path.read_text())
        except ValueError:
            raise self._broken(path) from None
        # As they come back from JSON: tuples have become lists.
        wanted: dict[str, Any] = json.loads(json.dumps(settings))
        if differing := sorted(name for name in begun.keys() | wanted.keys() if begun.get(name) != wanted.get(name)):
            raise ConfigurationError(
                f"{folder} was begun with another {', '.join(differing)}: give the same again to go on, "
                "or remove that folder to begin anew"
            )

    @property
    def frames(self) -> Path:
        return self.folder / "frames"

    def save(self, learnt: dict[str, Any], optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Write the state beside the last one and then replace it: at every moment one of them is whole."""
        from safetensors.torch import save_file

        new, current, old = self._folders()
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_file(_plain(learnt), new / WEIGHTS_FILE)
        save_file(_moments_of(optimiser), new / OPTIMISER_FILE)
        (new / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
        shutil.rmtree(old, ignore_errors=True)
        if current.exists():
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def load(self, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Progress] | None:
        """What `save` wrote last, the optimiser's part put into it; None where nothing was saved yet.

        Raises ConfigurationError for files that are cut short.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        _, current, old = self._folders()
        state = current if current.exists() else old
        if not state.exists():
            return None
        try:
            learnt = load_file(state / WEIGHTS_FILE)
            moments = load_file(state / OPTIMISER_FILE)
            written = json.loads((state / PROGRESS_FILE).read_text())
            progress = Progress(written["losses"], [(update, losses) for update, losses in written["validations"]])
            _put_moments(optimiser, moments)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            raise self._broken(state) from None
        return learnt, progress

    def save_best(self, learnt: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        unfinished = self._best.with_suffix(".new")
        save_file(_plain(learnt), unfinished)
        unfinished.replace(self._best)

    def load_best(self) -> dict[str, Tensor]:
        """Raises ConfigurationError for a file that is missing or cut short."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self._best)
        except (OSError, SafetensorError):
            raise self._broken(self._best) from None

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def _best(self) -> Path:
        return self.folder / "best.safetensors"

    def _folders(self) -> tuple[Path, Path, Path]:
        return self.folder / "state-new", self.folder / "state", self.folder / "state-old"

    def _broken(self, what: Path) -> ConfigurationError:
        return ConfigurationError(f"{what} is damaged or cut short: remove {self.folder} to begin anew")


def _plain(learnt: dict[str, Any]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in learnt.items()}


def _moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state as tensors named `<parameter's number>.<what>`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value.cpu().contiguous()
        for number, moments in state.items()
        for name, value in moments.items()
    }


def _put_moments(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    whole = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    whole["state"] = state
    optimiser.load_state_dict(whole)


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.replace(path)
