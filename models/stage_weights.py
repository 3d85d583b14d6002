"""Loading only what a process holds: a model's skeleton, filled from safetensors files by the names of its tensors.

An edge never reads the layers behind its second exit, and a cloud that only serves contexts reads no vision tower. What
is not held stays on the meta device, where it takes no memory. For a moment everything can still be computed: while a
model is `streamed`, what it lacks is read block by block, as its forward pass comes there, and dropped behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..bus.errors import ModelError
from .stages import check_shape, decoder_of
from .without_initialisation import without_initialisation

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What a process holds of a model. everything: every layer and the early exits. cloud: every layer. edge: vision,
# embedding, the layers up to the second exit, the exits. contexts: the layers behind the first exit, the output layer.
Part = Literal["everything", "cloud", "edge", "contexts"]

_ONE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# What was read of a file stays in memory until it is closed.
_TENSORS_PER_OPENING = 8


class NotInParts(Exception):
    """The files cannot be read by names, because the library converts what is in them; they are to be loaded whole."""


@dataclass(frozen=True)
class WeightFiles:
    """Where a model's weights are: file and name in it, by the model's own names."""

    places: dict[str, tuple[Path, str]]

    def read(self, names: Iterable[str], buffers: Buffers | None = None) -> Iterator[tuple[str, Tensor]]:
        """Tensors in float32, each a copy in memory of its own or of the buffers, so that no file stays open."""
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.places[name][0], []).append(name)
        for path, names_in_it in by_file.items():
            for start in range(0, len(names_in_it), _TENSORS_PER_OPENING):
                with safe_open(path, framework="pt") as file:
                    for name in names_in_it[start : start + _TENSORS_PER_OPENING]:
                        tensor = file.get_tensor(self.places[name][1])
                        buffer = torch.empty(tensor.shape) if buffers is None else buffers.take(tensor.shape)
                        yield name, buffer.copy_(tensor)


class Buffers:
    """Memory that blocks of the same shapes are read into, one after the other.

    The allocator would put small tensors into what one block leaves, and find new room for the next.
    """

    def __init__(self) -> None:
        self._free: dict[torch.Size, list[Tensor]] = {}

    def take(self, shape: torch.Size) -> Tensor:
        free = self._free.get(shape)
        return free.pop() if free else torch.empty(shape)

    def give_back(self, tensor: Tensor) -> None:
        self._free.setdefault(tensor.shape, []).append(tensor)


def empty_model(config: PretrainedConfig) -> Any:
    """A vision-language model whose parameters are all on the meta device, in evaluation mode.

    Its buffers, such as rotary frequencies, are real: files do not have them.
    """
    from transformers import AutoModelForImageTextToText

    with without_initialisation():
        # Not on the meta device at once, for the buffers' sake. Memory that is never written to is never taken.
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.tie_weights()
    for names in _parameter_names(model):
        _put(model, names, torch.empty_like(model.get_parameter(names[0]), device="meta"))
    return model.eval()


def find_weights(source: str, model: nn.Module, *, local_files_only: bool) -> WeightFiles:
    """Look up every weight of a model in the headers of its files; nothing else of them is read.

    source: a folder or a hub id. Raises NotInParts where the files' tensors are not the model's one by one, ModelError
    where some are missing, and what transformers and safetensors raise for files that are missing or damaged.
    """
    from safetensors import safe_open

    state = model.state_dict()
    places: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, list[int]] = {}
    for path in _files(source, local_files_only):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                name = _name_in_model(model, state, key)
                places[name] = (path, key)
                shapes[name] = file.get_slice(key).get_shape()
    tied = {name for names in _parameter_names(model) if not places.keys().isdisjoint(names) for name in names}
    wrong = [name for name in state if name in places and shapes[name] != list(state[name].shape)]
    if missing := sorted([*(name for name in state if name not in places and name not in tied), *wrong]):
        raise lacking(source, missing)
    return WeightFiles({name: place for name, place in places.items() if name in state})


def lacking(source: str, missing: list[str]) -> ModelError:
    """missing: names of weights."""
    return ModelError(
        f"the model {source} lacks {len(missing)} of its weights, {missing[0]} first; "
        "restore its files or name another with --model"
    )


def hold(model: Any, files: WeightFiles, part: Part, exit_layers: tuple[int, ...], *, with_head: bool) -> None:
    """Read the tensors of a part into an empty model.

    with_head: the edge's exits are the model's own final norm and output layer.
    """
    decoder = decoder_of(model)
    check_shape(decoder)
    wanted = {name for name in model.state_dict() if _belongs(name, model, decoder, part, exit_layers, with_head)}
    _fill(model, files, [names for names in _parameter_names(model) if not wanted.isdisjoint(names)])
    for name, tensor in files.read(name for name, _ in model.named_buffers() if name in files.places):
        model.get_buffer(name).copy_(tensor)


@contextmanager
def streamed(model: nn.Module, files: WeightFiles) -> Iterator[None]:
    """Meanwhile the model can be run as a whole: what it does not hold is read when it is reached, and then dropped.

    A model that looks at weights before it reaches their module computes NaN.
    """
    missing = [names for names in _parameter_names(model) if model.get_parameter(names[0]).is_meta]
    hooks, buffers = [], Buffers()
    for prefix, block, recurse in _blocks(model):
        own = {f"{prefix}.{name}" for name, _ in block.named_parameters(recurse=recurse)}
        if names_of_block := [names for names in missing if not own.isdisjoint(names)]:
            hooks.append(block.register_forward_pre_hook(partial(_fill_before, model, files, names_of_block, buffers)))
            hooks.append(block.register_forward_hook(partial(_drop_after, model, names_of_block, buffers)))
    try:
        _drop(model, missing)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for names in missing:
            _put(model, names, torch.empty_like(model.get_parameter(names[0]), device="meta"))


def _fill_before(
    model: nn.Module, files: WeightFiles, parameters: list[list[str]], buffers: Buffers, *_: object
) -> None:
    _fill(model, files, parameters, buffers)


def _drop_after(model: nn.Module, parameters: list[list[str]], buffers: Buffers, *_: object) -> None:
    for names in parameters:
        buffers.give_back(model.get_parameter(names[0]).data)
    _drop(model, parameters)


def _drop(model: nn.Module, parameters: list[list[str]]) -> None:
    for names in parameters:
        # Not on the meta device, since models send their inputs to the device of their first weight. It takes the
        # memory of one number.
        _put(model, names, torch.full((), torch.nan).expand(model.get_parameter(names[0]).shape))


def held_bytes(model: nn.Module) -> int:
    """Memory of the parameters that are not on the meta device; tied ones count once."""
    return sum(each.nbytes for each in model.parameters() if not each.is_meta)


def _files(source: str, local_files_only: bool) -> list[Path]:
    from transformers.utils.hub import cached_file

    def find(name: str, *, must_exist: bool) -> str | None:
        return cached_file(
            source,
            name,
            local_files_only=local_files_only,
            _raise_exceptions_for_missing_entries=must_exist,
        )

    index = find(_INDEX, must_exist=False)
    names = {_ONE_FILE} if index is None else set(json.loads(Path(index).read_text())["weight_map"].values())
    return [Path(str(find(name, must_exist=True))) for name in sorted(names)]


def _name_in_model(model: Any, state: dict[str, Tensor], key: str) -> str:
    """What the library calls a file's tensor; files of published models keep the names of older versions."""
    if key in state:
        return key
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError as error:  # these moved between versions 5.0 and 5.x
        raise NotInParts from error
    mapping = get_model_conversion_mapping(model)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    name, converted_by = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
    if converted_by is not None:
        raise NotInParts(f"{key} is converted on loading")
    return name


def _belongs(
    name: str, model: Any, decoder: nn.Module, part: Part, exit_layers: tuple[int, ...], with_head: bool
) -> bool:
    """Whether a weight of this name is one of the part's."""
    first_exit, second_exit = exit_layers
    decoder_name, head_name = _name_of(model, decoder), _name_of(model, model.get_output_embeddings())
    in_head = name.startswith((f"{head_name}.", f"{decoder_name}.norm."))
    layers = f"{decoder_name}.layers."
    layer = int(name.removeprefix(layers).split(".")[0]) if name.startswith(layers) else None
    if part == "edge":
        return with_head if in_head else layer is None or layer < second_exit
    if part == "contexts":
        return in_head or (layer is not None and layer >= first_exit)
    return True


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _blocks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, bool]]:
    """The pieces to stream: name, module, and whether with all that is inside it.

    Each block of a list of blocks is one, and what has no such list in it; their modules may look at each other's
    weights. Of what holds a list, only the weights of its own.
    """
    for name, child in model.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.ModuleList):
            yield from ((f"{path}.{index}", block, True) for index, block in enumerate(child))
        elif any(isinstance(module, nn.ModuleList) for module in child.modules()):
            yield path, child, False
            yield from _blocks(child, path)
        else:
            yield path, child, True


def _parameter_names(model: nn.Module) -> list[list[str]]:
    """The names of each parameter: one, or several where it is tied."""
    by_parameter: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_parameter.setdefault(id(parameter), []).append(name)
    return list(by_parameter.values())


def _fill(model: nn.Module, files: WeightFiles, parameters: list[list[str]], buffers: Buffers | None = None) -> None:
    by_name = {next(name for name in names if name in files.places): names for names in parameters}
    for name, tensor in files.read(by_name, buffers):
        _put(model, by_name[name], tensor)


def _put(model: nn.Module, names: list[str], tensor: Tensor) -> None:
    parameter = nn.Parameter(tensor, requires_grad=False)
    for name in names:
        module_name, _, leaf = name.rpartition(".")
        model.get_submodule(module_name).register_parameter(leaf, parameter)
