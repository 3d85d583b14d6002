"""Models on disk: the bundled one, a folder, or one from the Hugging Face hub. Safetensors and JSON, never pickle.

A folder of ours is an ordinary Hugging Face model folder with three files beside it: exits.safetensors and
exits.json (exits.py), and card.json, which says what the model was trained on and what it scored. Or it is an adapter
(adapters.py) with those three files, and names the folder or hub id of its base.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from ..bus.errors import ModelError
from . import adapters
from .exits import SETTINGS_FILE, Exits, default_layers, exits_from_final_head, load_exits, read_settings
from .stages import decoder_of, final_head, visual_layers
from .still_images import load_processor

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

CARD_FILE = "card.json"

# What transformers and what it stands on raise for files that are missing, broken or of another kind.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, in float32 and evaluation mode.

    digest: SHA-256 over the folder's files, or the hub's commit; empty where there is neither.
    card: card.json's content; empty for a model that is not ours.
    """

    name: str
    digest: str
    model: PreTrainedModel
    processor: ProcessorMixin
    exits: Exits
    card: dict[str, Any]

    def quality(self, place: str) -> dict[str, float]:
        """Success rate by task kind at a place ("edge", "cloud"), as the card states it; empty where it does not."""
        return dict(self.card.get("quality", {}).get(place, {}))


def bundled_model_path() -> Path:
    """Where the package keeps its own model."""
    return Path(str(resources.files("roadside.models"))) / "bundled"


def load(model: str | Path | None = None) -> Checkpoint:
    """Load the bundled model (None), a folder, or a hub id such as "HuggingFaceTB/SmolVLM-256M-Instruct".

    Only a hub id ever reaches for the network. Raises ModelError, which says what to do, for an unknown name and for
    missing, broken or truncated files.
    """
    source = _locate(model)
    return _load_folder(source) if isinstance(source, Path) else _load_from_hub(source)


def load_configuration(model: str | Path | None = None) -> tuple[PretrainedConfig, ProcessorMixin, tuple[int, ...]]:
    """A model's configuration, processor and exit layers, without its weights; an adapter's are its base's.

    Raises ModelError as `load` does.
    """
    from transformers import AutoConfig

    source = _locate(model)
    if isinstance(source, Path) and adapters.is_adapter(source):
        return load_configuration(adapters.base_name(source))
    local = isinstance(source, Path)
    quiet_transformers()
    try:
        config = AutoConfig.from_pretrained(str(source), local_files_only=local)
        processor = load_processor(str(source), local_files_only=local)
    except _UNREADABLE as error:
        raise _not_loaded(str(source), error) from error
    if local and (source / SETTINGS_FILE).is_file():
        return config, processor, read_settings(source)[0]
    return config, processor, default_layers(config.get_text_config().num_hidden_layers, visual_layers(config))


def _locate(model: str | Path | None) -> Path | str:
    """A folder with a model, or a hub id. Raises ModelError for what is neither."""
    if model is None:
        folder = bundled_model_path()
        if not (folder / "config.json").is_file():
            raise ModelError(
                "this installation has no bundled model; "
                "train one with `roadside train vlm DIR` and name it with `--model DIR`"
            )
        return folder
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file() and not adapters.is_adapter(Path(model)):
            raise ModelError(f"{model} is not a model's folder: it has no config.json")
        return Path(model)
    if _is_hub_id(str(model)):
        return str(model)
    raise ModelError(f"no model at {model}; give a model's folder or a Hugging Face id like owner/name")


def quiet_transformers() -> ModuleType:
    """The transformers package without its warnings and progress bars, which are not for our users."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def reason(error: Exception) -> str:
    """The first line of what a library says, or the error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def _load_folder(folder: Path) -> Checkpoint:
    if adapters.is_adapter(folder):
        return _load_adapted(folder)
    model, processor = _load_pretrained(str(folder), local_files_only=True)
    card = _card(folder)
    return Checkpoint(
        name=card.get("name", folder.resolve().name),
        digest=_digest(folder),
        model=model,
        processor=processor,
        exits=_exits(model, folder),
        card=card,
    )


def _load_adapted(folder: Path) -> Checkpoint:
    """An adapter merged into its base."""
    card = _card(folder)
    try:
        base = load(adapters.base_name(folder))
    except ModelError as error:
        raise ModelError(f"{folder} is an adapter, and its base cannot be used: {error}") from error
    adapters.check_base(folder, card, base.digest)
    model = adapters.with_adapter(base.model, folder).eval()
    return Checkpoint(
        name=card.get("name", folder.resolve().name),
        digest=_digest(folder),
        model=model,
        processor=base.processor,
        exits=_exits(model, folder),
        card=card,
    )


def _load_from_hub(hub_id: str) -> Checkpoint:
    model, processor = _load_pretrained(hub_id, local_files_only=False)
    return Checkpoint(
        name=hub_id,
        digest=getattr(model.config, "_commit_hash", None) or "",
        model=model,
        processor=processor,
        exits=_exits(model, folder=None),
        card={},
    )


def _load_pretrained(source: str, *, local_files_only: bool) -> tuple[PreTrainedModel, ProcessorMixin]:
    transformers = quiet_transformers()
    try:
        processor = load_processor(source, local_files_only=local_files_only)
        model, found = transformers.AutoModelForImageTextToText.from_pretrained(
            source,
            local_files_only=local_files_only,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _UNREADABLE as error:
        raise _not_loaded(source, error) from error
    # The library would fill gaps with random numbers and only warn.
    if missing := sorted([*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])]):
        raise ModelError(
            f"the model {source} lacks {len(missing)} of its weights, {missing[0]} first; "
            "restore its files or name another with --model"
        )
    return model.eval(), processor


def _not_loaded(source: str, error: Exception) -> ModelError:
    return ModelError(
        f"the model {source} cannot be loaded ({reason(error)}); restore its files or name another with --model"
    )


def _exits(model: PreTrainedModel, folder: Path | None) -> Exits:
    decoder = decoder_of(model)
    if folder is not None and (folder / SETTINGS_FILE).is_file():
        return load_exits(folder, decoder.config.hidden_size, decoder.config.vocab_size)
    layers = default_layers(decoder.config.num_hidden_layers, visual_layers(model.config))
    return exits_from_final_head(final_head(model), layers)


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CARD_FILE
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); restore it, or delete it to go without figures") from error
    if not isinstance(card, dict):
        raise ModelError(f"{path} must hold one JSON object; restore it, or delete it to go without figures")
    return card


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
