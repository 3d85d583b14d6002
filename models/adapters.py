"""Adapter folders: what `roadside fine-tune --keep-adapter` writes, a low-rank change of a base that lies elsewhere."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..bus.errors import ModelError

SETTINGS_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    return (folder / SETTINGS_FILE).is_file()


def base_name(folder: Path) -> str:
    """The folder or hub id of the model that an adapter changes. Raises ModelError where it names none."""
    try:
        name = json.loads((folder / SETTINGS_FILE).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{folder / SETTINGS_FILE} names no base model; write it there as base_model_name_or_path, or train anew"
        )
    return name


def with_adapter(model: Any, folder: Path) -> Any:
    """The base with the adapter merged into its weights; changes the given model.

    Raises ModelError where the adapter was made for another base, or its files are damaged.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            written = set(weights.keys())
        with warnings.catch_warnings():
            # It warns of weights that it does not find and goes on; below they are compared.
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the adapter in {folder} cannot be read ({_first_line(error)}); restore its files or train anew"
        ) from error
    # Other sizes, or no layers of these names.
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _made_for_another(folder, _first_line(error)) from error
    if differing := written ^ set(get_peft_model_state_dict(adapted)):
        raise _made_for_another(folder, f"{len(differing)} weights have no counterpart, {min(differing)} first")
    return adapted.merge_and_unload()


def check_base(folder: Path, card: dict[str, Any], digest: str) -> None:
    """Raise ModelError where the base's digest is not the one that the adapter's card names."""
    expected = card.get("base", {}).get("digest", "")
    if expected and digest and expected != digest:
        raise _made_for_another(folder, f"its digest was {expected[:12]} and is now {digest[:12]}")


def _made_for_another(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the adapter in {folder} was made for another base than {base_name(folder)} is now ({why}); "
        "restore that base, or train anew"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
