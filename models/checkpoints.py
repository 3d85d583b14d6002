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
from torch import nn

from ..bus.errors import ModelError
from . import adapters
from .exits import SETTINGS_FILE, Exits, default_layers, exits_from_final_head, load_exits, read_settings
from .stage_weights import NotInParts, Part, WeightFiles, empty_model, find_weights, hold, lacking
from .stages import decoder_of, final_head, visual_layers
from .still_images import load_processor
from .without_initialisation import alone_in_the_library

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

CARD_FILE = "card.json"

# What transformers and what it stands on raise for files that are missing, broken or of another kind.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, in float32 and evaluation mode.

    digest: SHA-256 over the folder's files, or the hub's commit; empty where there is neither.
    exits: without heads where the part that was loaded has none.
    card: card.json's content; empty for a model that is not ours.
    folder: where something may be written beside the model's files; None: nowhere.
    files: where the weights are that the model does not hold; None: it holds all.
    recordable: whether the digest stands for all that the model computes; an adapter's does not for its base.
    """

    name: str
    digest: str
    model: PreTrainedModel
    processor: ProcessorMixin
    exits: Exits
    card: dict[str, Any]
    folder: Path | None = None
    files: WeightFiles | None = None
    recordable: bool = True

    def quality(self, place: str) -> dict[str, float]:
        """Success rate by task kind at a place ("edge", "cloud"), as the card states it; empty where it does not."""
        return dict(self.card.get("quality", {}).get(place, {}))


def bundled_model_path() -> Path:
    """Where the package keeps its own model."""
    return Path(str(resources.files("roadside.models"))) / "bundled"


def load(model: str | Path | None = None, part: Part = "everything") -> Checkpoint:
    """Load the bundled model (None), a folder, or a hub id such as "HuggingFaceTB/SmolVLM-256M-Instruct".

    part: what of it is wanted. The rest is not read, and its weights are on the meta device; an adapter's base, and a
    model whose files the library converts on loading, are loaded whole.
    Only a hub id ever reaches for the network. Raises ModelError, which says what to do, for an unknown name and for
    missing, broken or truncated files.
    """
    source = _locate(model)
    if isinstance(source, Path) and adapters.is_adapter(source):
        return _load_adapted(source, part)
    return _load_folder(source, part) if isinstance(source, Path) else _load_from_hub(source, part)


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
    layers = _exit_layers(source) if isinstance(source, Path) else None
    return config, processor, layers or _default_exit_layers(config)


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


def _load_folder(folder: Path, part: Part) -> Checkpoint:
    layers = _exit_layers(folder)
    model, processor, files = _load_part(str(folder), part, layers, local_files_only=True)
    card = _card(folder)
    return Checkpoint(
        name=card.get("name", folder.resolve().name),
        digest=_digest(folder),
        model=model,
        processor=processor,
        exits=_exits(model, folder, part),
        card=card,
        # What belongs to an installed package is left as it is.
        folder=None if folder == bundled_model_path() else folder,
        files=files,
    )


def _load_adapted(folder: Path, part: Part) -> Checkpoint:
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
        exits=_exits(model, folder, part),
        card=card,
        recordable=False,
    )


def _load_from_hub(hub_id: str, part: Part) -> Checkpoint:
    model, processor, files = _load_part(hub_id, part, None, local_files_only=False)
    return Checkpoint(
        name=hub_id,
        digest=getattr(model.config, "_commit_hash", None) or "",
        model=model,
        processor=processor,
        exits=_exits(model, None, part),
        card={},
        files=files,
        # A folder of the hub's cache that has no commit could be anything.
        recordable=bool(getattr(model.config, "_commit_hash", None)),
    )


def _load_part(
    source: str, part: Part, exit_layers: tuple[int, ...] | None, *, local_files_only: bool
) -> tuple[PreTrainedModel, ProcessorMixin, WeightFiles | None]:
    """exit_layers: None where the model's own output layer serves as its exits, at the default layers."""
    if part in ("edge", "contexts"):
        quiet_transformers()
        try:
            processor = load_processor(source, local_files_only=local_files_only)
            model, files = _read_part(source, part, exit_layers, local_files_only)
        except NotInParts:
            pass
        except _UNREADABLE as error:
            raise _not_loaded(source, error) from error
        else:
            return model, processor, files
    return *_load_pretrained(source, local_files_only=local_files_only), None


def _read_part(
    source: str, part: Part, exit_layers: tuple[int, ...] | None, local_files_only: bool
) -> tuple[PreTrainedModel, WeightFiles]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, local_files_only=local_files_only)
    if getattr(config, "quantization_config", None) is not None:
        raise NotInParts("its weights are quantised")
    model = empty_model(config)
    files = find_weights(source, model, local_files_only=local_files_only)
    layers = exit_layers or _default_exit_layers(config)
    hold(model, files, part, layers, with_head=exit_layers is None)
    return model, files


def _load_pretrained(source: str, *, local_files_only: bool) -> tuple[PreTrainedModel, ProcessorMixin]:
    transformers = quiet_transformers()
    try:
        processor = load_processor(source, local_files_only=local_files_only)
        with alone_in_the_library():
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
        raise lacking(source, missing)
    return model.eval(), processor


def _not_loaded(source: str, error: Exception) -> ModelError:
    return ModelError(
        f"the model {source} cannot be loaded ({reason(error)}); restore its files or name another with --model"
    )


def _exits(model: PreTrainedModel, folder: Path | None, part: Part) -> Exits:
    layers = None if folder is None else _exit_layers(folder)
    if part in ("cloud", "contexts"):
        return Exits(layers or _default_exit_layers(model.config), nn.ModuleList(), ())
    if folder is not None and layers is not None:
        decoder = decoder_of(model)
        return load_exits(folder, decoder.config.hidden_size, decoder.config.vocab_size)
    return exits_from_final_head(final_head(model), _default_exit_layers(model.config))


def _exit_layers(folder: Path) -> tuple[int, ...] | None:
    """Of a folder with exits of its own, else None."""
    return read_settings(folder)[0] if (folder / SETTINGS_FILE).is_file() else None


def _default_exit_layers(config: PretrainedConfig) -> tuple[int, int]:
    return default_layers(config.get_text_config().num_hidden_layers, visual_layers(config))


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
        with path.open("rb") as file:
            # In pieces, since a model's files may be larger than this machine's memory.
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
