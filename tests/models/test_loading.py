"""A process reads the tensors of its own stages, and proves them by what the unsplit model computed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from roadside.bus.errors import ModelError, SplitError
from roadside.datasets.phrases import words
from roadside.models import checkpoints, loading, split_records
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.exits import Exits, new_heads
from roadside.models.loading import load_contexts, load_edge
from roadside.models.questions import Question, answer_at_once
from roadside.models.split_records import RECORD_FILE, find_record
from roadside.models.stage_weights import WeightFiles, held_bytes
from roadside.models.vlm import Recipe, build_model, build_processor
from safetensors.torch import load_file, save_file
from torch import Tensor

# Of the tiny model, whose exits are behind layers 2 and 4 of 6.
DECODER = "model.text_model."
HEAD = ("lm_head.", f"{DECODER}norm.")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return split_records.cache_folder()


@pytest.fixture
def names_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every tensor that is read, by name."""
    read, names = WeightFiles.read, []

    def noted(files: WeightFiles, wanted: Iterable[str], *others: Any) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in read(files, wanted, *others):
            names.append(name)
            yield name, tensor

    monkeypatch.setattr(WeightFiles, "read", noted)
    return names


def layer_of(name: str) -> int | None:
    return int(name.split(".")[3]) if name.startswith(f"{DECODER}layers.") else None


def of_edge(name: str) -> bool:
    layer = layer_of(name)
    return not name.startswith(HEAD) and (layer is None or layer < 4)


def of_contexts(name: str) -> bool:
    layer = layer_of(name)
    return name.startswith(HEAD) or (layer is not None and layer >= 2)


@pytest.mark.parametrize(("load", "is_own"), [(load_edge, of_edge), (load_contexts, of_contexts)])
def test_a_part_holds_its_own_tensors_and_no_others(
    load: Callable[[str], Any], is_own: Callable[[str], bool], write_model: Callable[..., Path], names_read: list[str]
) -> None:
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    own = {name for name in weights if is_own(name)}
    model = load(str(folder)).checkpoint.model
    assert {name for name, weight in model.named_parameters() if not weight.is_meta} == own
    # In float32 here, in float16 on disk.
    assert held_bytes(model) == sum(2 * weights[name].nbytes for name in own)
    for name in own:
        assert model.get_parameter(name).equal(weights[name].float()), name
    # The first load had to read everything once; the next goes by its record.
    assert set(names_read) == set(weights)
    names_read.clear()
    load(str(folder))
    assert set(names_read) == own
    assert len(names_read) == len(own)


def test_parts_answer_as_the_whole_does(tiny_folder: Path, frame: bytes) -> None:
    edge, contexts, cloud = (
        load_edge(str(tiny_folder)),
        load_contexts(str(tiny_folder)),
        cloud_answerer(str(tiny_folder)),
    )
    inputs = edge.reader.read(Question("describe the scene .", (frame,)))
    prompt = edge.encoder.encode(inputs)
    assert isinstance(prompt, Tensor)
    first, rest = edge.first.session(), contexts.rest.session()
    with torch.inference_mode():
        first.feed(prompt)
        rest.feed(first.catch_up())
        ours = contexts.head(rest.catch_up()[0, -1])
        whole = cloud.whole
        expected_first, expected_rest = whole.first.session(), whole.rest.session()
        expected_first.feed(cloud.encoder.encode(inputs))
        expected_rest.feed(expected_first.catch_up())
        assert ours.equal(whole.head(expected_rest.catch_up()[0, -1]))
    assert edge.checkpoint.digest == contexts.checkpoint.digest == cloud.model_hash


def test_files_in_shards_are_read_by_their_index(tiny_folder: Path, tmp_path: Path, names_read: list[str]) -> None:
    whole = checkpoints.load(tiny_folder)
    whole.model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    whole.processor.save_pretrained(tmp_path / "shards")
    whole.exits.save(tmp_path / "shards", calibration={})
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 3
    edge = load_edge(str(tmp_path / "shards"))
    assert {name for name, weight in edge.checkpoint.model.named_parameters() if not weight.is_meta} == {
        name for name in index if of_edge(name)
    }
    names_read.clear()
    load_edge(str(tmp_path / "shards"))
    assert all(of_edge(name) for name in names_read)


def test_names_of_older_versions_are_understood(write_model: Callable[..., Path], frame: bytes) -> None:
    """Files of a base model leave out its prefix, and the library puts it back."""
    folder = write_model()
    question = Question("describe the scene .", (frame,), max_tokens=6)
    expected = answer_at_once(edge_answerer(str(folder)), question).tokens
    weights = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    assert answer_at_once(edge_answerer(str(folder)), question).tokens == expected


def test_a_weight_that_is_missing_elsewhere_is_missed_here(write_model: Callable[..., Path]) -> None:
    """An edge does not need the last layer, but it is half of a model that nobody can make whole."""
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    del weights[f"{DECODER}layers.5.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, .*layers\.5\.mlp\.up_proj"):
        load_edge(str(folder))


# Records


def record_of(folder: Path) -> Path:
    return folder / RECORD_FILE


def test_a_cloud_leaves_the_record_that_an_edge_goes_by(
    write_model: Callable[..., Path], names_read: list[str]
) -> None:
    folder = write_model()
    digest = checkpoints.load(folder).digest
    cloud_answerer(str(folder))
    assert record_of(folder).stat().st_size < 200_000
    assert checkpoints.load(folder).digest == digest
    load_edge(str(folder))
    assert all(of_edge(name) for name in names_read)


def _cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _of_another_split(path: Path) -> None:
    """Sound, with the right key, and wrong."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        key = file.metadata()
    tensors = load_file(path)
    tensors["after_first"] = tensors["after_first"] * 1.1
    save_file(tensors, path, metadata=key)


def _of_another_shape(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        key = file.metadata()
    tensors = load_file(path)
    tensors["after_first"] = tensors["after_first"][:, :, :-2].contiguous()
    save_file(tensors, path, metadata=key)


def _without_its_key(path: Path) -> None:
    save_file(load_file(path), path)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [_cut_in_half, _of_another_split, _of_another_shape, _without_its_key, _gone])
@pytest.mark.parametrize("load", [load_edge, load_contexts])
def test_a_record_that_is_wrong_is_made_anew(
    load: Callable[[str], Any], spoil: Callable[[Path], None], write_model: Callable[..., Path], names_read: list[str]
) -> None:
    folder = write_model()
    load(str(folder))
    right = record_of(folder).read_bytes()
    spoil(record_of(folder))
    names_read.clear()
    load(str(folder))
    assert set(names_read) == set(load_file(folder / "model.safetensors"))
    assert load_file(record_of(folder)).keys() == {
        "continuation",
        "after_first",
        "after_second",
        "likeliest",
        "last_logits",
    }
    assert record_of(folder).read_bytes() == right


def test_other_weights_and_other_libraries_have_other_records(
    write_model: Callable[..., Path], names_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model()
    load_edge(str(folder))
    names_read.clear()
    monkeypatch.setattr(split_records, "version", lambda library: f"another {library}")
    load_edge(str(folder))
    assert not all(of_edge(name) for name in names_read)
    names_read.clear()
    write_model(seed=1)  # over the same folder; its record stays
    load_edge(str(folder))
    assert not all(of_edge(name) for name in names_read)


def test_where_nothing_can_be_written_the_record_is_in_the_cache(
    write_model: Callable[..., Path], cache: Path, names_read: list[str]
) -> None:
    folder = write_model()
    # Whoever runs the tests may write anywhere, but nobody can put a file in a folder's place.
    record_of(folder).mkdir()
    load_edge(str(folder))
    assert len(list(cache.iterdir())) == 1
    names_read.clear()
    load_edge(str(folder))
    assert all(of_edge(name) for name in names_read)


def test_the_bundled_model_is_left_as_it_is(cache: Path) -> None:
    folder = checkpoints.bundled_model_path()
    if not (folder / "config.json").is_file():
        pytest.skip("this checkout has no bundled model (models/bundled)")
    before = sorted(folder.iterdir())
    edge_answerer(None)
    assert sorted(folder.iterdir()) == before
    assert len(list(cache.iterdir())) == 1


def test_a_wrong_split_is_refused_whatever_the_record_says(
    write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model()
    load_edge(str(folder))
    right = record_of(folder).read_bytes()
    stage = loading.Stage
    monkeypatch.setattr(loading, "Stage", lambda decoder, first, end: stage(decoder, min(first, 1), end))
    with pytest.raises(SplitError, match="do not reproduce it"):
        load_edge(str(folder))
    assert record_of(folder).read_bytes() == right


def test_a_record_is_found_only_by_its_key(write_model: Callable[..., Path]) -> None:
    folder = write_model()
    load_edge(str(folder))
    assert find_record(folder, "0" * 64) is None


# Memory

# The peak of this program alone: what getrusage tells goes on from the peak of the process that started it.
PEAK = """
import sys
from pathlib import Path
from roadside.models import loading
from roadside.models.stage_weights import held_bytes

def peak_bytes():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

load = getattr(loading, sys.argv[1])
load(sys.argv[2])
before = peak_bytes()
part = load(sys.argv[3])
print(before, peak_bytes() - before, held_bytes(part.checkpoint.model))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a program's peak of memory")
@pytest.mark.parametrize(
    ("width", "layers"), [(512, 12), pytest.param(768, 24, marks=pytest.mark.slow)], ids=["100 MB", "400 MB"]
)
def test_the_peak_of_memory_is_that_of_the_own_tensors(
    width: int, layers: int, tiny_folder: Path, tmp_path: Path
) -> None:
    """Also at the first load, for which everything is read once."""
    recipe = Recipe(text_width=width, text_layers=layers, text_mlp_width=4 * width, text_heads=8)
    folder = tmp_path / "large"
    processor = build_processor(recipe, words())
    model = build_model(recipe, processor, seed=0)
    whole_bytes = held_bytes(model)
    processor.save_pretrained(folder)
    vocabulary = model.lm_head.out_features
    model.half().save_pretrained(folder)
    Exits((layers // 6, layers // 4), new_heads(2, width, vocabulary), (0.8, 0.8)).save(folder, calibration={})
    del model
    for load, record in (("load_edge", "made"), ("load_edge", "found"), ("load_contexts", "found")):
        assert record_of(folder).exists() == (record == "found")
        command = [sys.executable, "-P", "-c", PEAK, load, str(tiny_folder), str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        base_bytes, peak_bytes, own_bytes = map(int, done.stdout.split())
        print(
            f"{load}, its record {record}: whole model {whole_bytes / 1e6:.0f} MB, "
            f"own tensors {own_bytes / 1e6:.0f} MB, "
            f"peak {peak_bytes / 1e6:.0f} MB above the base of {base_bytes / 1e6:.0f} MB"
        )
        # When everything is read once, a block more, and what it is read from; and what computing takes.
        streamed_bytes = 2 * whole_bytes / layers if record == "made" else 0
        assert peak_bytes < 1.1 * own_bytes + streamed_bytes + 50e6
