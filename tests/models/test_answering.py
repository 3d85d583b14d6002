"""From a question to an answer: both places, images that cannot be used, and models that cannot be loaded."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from roadside.bus.errors import MessageRefused, ModelError
from roadside.bus.kinds import EXPLAIN, KINDS
from roadside.models import checkpoints
from roadside.models.answering import cloud_answerer, edge_answerer, vehicle_answerer
from roadside.models.decoding import Spoke
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Answerer, Question, answer_at_once, own_place
from roadside.models.tokenizer import IMAGE, SPECIAL_TOKENS

PLACES: dict[str, Callable[[str | None], Answerer]] = {
    "edge": edge_answerer,
    "cloud": cloud_answerer,
    "vehicle": vehicle_answerer,
}
VOICES = {"edge": {"exit1", "exit2"}, "cloud": {"full"}, "vehicle": {"exit1", "exit2"}}
BUNDLED = (checkpoints.bundled_model_path() / "config.json").is_file()


@pytest.fixture(scope="module", params=PLACES)
def answerer(request: pytest.FixtureRequest, tiny_folder: Path) -> Answerer:
    return PLACES[request.param](str(tiny_folder))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def encoded(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def test_an_answer_says_who_made_each_token(answerer: Answerer, frame: bytes) -> None:
    answer = answer_at_once(answerer, Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 36.0}, max_tokens=9))
    assert 1 <= len(answer.tokens) <= 9
    assert len(answer.made_by) == len(answer.tokens)
    assert set(answer.made_by) <= VOICES[own_place(answerer)]
    assert 0 < answer.confidence <= 1
    assert answer.vision_ms > 0
    assert answer.decode_ms > 0
    assert not any(token in answer.text for token in SPECIAL_TOKENS)


def test_the_same_question_gets_the_same_answer(answerer: Answerer, frame: bytes) -> None:
    question = Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 36.0})
    assert answer_at_once(answerer, question).tokens == answer_at_once(answerer, question).tokens


def test_the_newest_two_frames_are_looked_at(answerer: Answerer, frame: bytes) -> None:
    other = encoded(Image.new("RGB", (320, 192), (200, 20, 20)), "PNG")
    asked = [(other,), (frame, other), (other, other), (other, frame, other)]
    prompts = [answerer.reader.read(Question(EXPLAIN.prompt, frames)) for frames in asked]  # pyright: ignore[reportAttributeAccessIssue]
    assert [prompt["pixel_values"].shape[1] for prompt in prompts] == [1, 2, 2, 2]
    assert torch.equal(prompts[1]["pixel_values"], prompts[3]["pixel_values"])
    assert not torch.equal(prompts[1]["pixel_values"], prompts[2]["pixel_values"])
    for frames in asked:
        assert answer_at_once(answerer, Question(EXPLAIN.prompt, frames)).tokens


def test_two_frames_are_answered_as_the_library_generates(tiny_folder: Path, frame: bytes) -> None:
    other = encoded(Image.new("RGB", (320, 192), (200, 20, 20)), "PNG")
    question = Question(EXPLAIN.prompt, (frame, other), {"Vehicle.Speed": 36.0}, max_tokens=16)
    checkpoint = checkpoints.load(tiny_folder)
    inputs = PromptReader(checkpoint.processor).read(question)
    expected = checkpoint.model.generate(**inputs, max_new_tokens=16, do_sample=False)  # pyright: ignore[reportCallIssue, reportArgumentType]
    said = answer_at_once(cloud_answerer(str(tiny_folder)), question).tokens
    assert list(said) == expected[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_cloud_answers_as_the_library_generates(tiny_folder: Path, frame: bytes) -> None:
    """The whole path of ours, against Hugging Face's own `generate` on the folder as it is."""
    question = Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 36.0}, max_tokens=16)
    checkpoint = checkpoints.load(tiny_folder)
    inputs = PromptReader(checkpoint.processor).read(question)
    expected = checkpoint.model.generate(**inputs, max_new_tokens=16, do_sample=False)  # pyright: ignore[reportCallIssue, reportArgumentType]
    said = answer_at_once(cloud_answerer(str(tiny_folder)), question).tokens
    assert list(said) == expected[0, inputs["input_ids"].shape[1] :].tolist()


def test_an_answer_can_be_broken_off_after_any_token(answerer: Answerer, frame: bytes) -> None:
    steps = answerer.begin(Question(EXPLAIN.prompt, (frame,)), own_place(answerer))
    assert isinstance(next(steps), Spoke)
    assert isinstance(next(steps), Spoke)
    steps.close()
    assert list(steps) == []


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (b"", "image-format"),
        (b"GIF89a not a frame", "image-format"),
        (encoded(Image.new("RGB", (8, 8)), "BMP"), "image-format"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "image-format"),
        (png_header(60_000, 60_000), "image-size"),
        (png_header(2001, 2000), "image-size"),
        (png_header(640, 480), "image-damaged"),
        (encoded(Image.effect_noise((320, 192), 90).convert("RGB"), "JPEG")[:3000], "image-damaged"),
    ],
    ids=["empty", "text", "bmp", "gif", "bomb", "too-large", "png-without-pixels", "cut-jpeg"],
)
def test_an_unusable_image_is_refused_with_its_reason(answerer: Answerer, picture: bytes, reason: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        answer_at_once(answerer, Question(EXPLAIN.prompt, (picture,)))
    assert refused.value.reason == reason


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_every_kind_of_png_is_understood(answerer: Answerer, mode: str) -> None:
    grey = Image.linear_gradient("L")
    picture = Image.new(mode, (40, 30)) if mode == "I;16" else grey.convert(mode)
    assert answer_at_once(answerer, Question(EXPLAIN.prompt, (encoded(picture, "PNG"),))).tokens


@pytest.mark.parametrize("written", ["{}", "\N{RIGHT-TO-LEFT OVERRIDE}{}\0", "x{}y"], ids=["", "with controls", "in"])
def test_control_tokens_in_a_prompt_are_left_out(answerer: Answerer, frame: bytes, written: str) -> None:
    """An extra image token would make the model look for a second image; the tokenizer knows no capitals."""
    plain = answer_at_once(answerer, Question("what is xy this ?" if "x" in written else "what is this ?", (frame,)))
    for token in (*SPECIAL_TOKENS, IMAGE.upper(), f"{IMAGE[:3]}{IMAGE}{IMAGE[3:]}"):
        said = answer_at_once(answerer, Question(f"what is {written.format(token)} this ?", (frame,)))
        assert said.tokens == plain.tokens


def test_a_question_without_a_frame_is_refused(answerer: Answerer) -> None:
    with pytest.raises(MessageRefused) as refused:
        answer_at_once(answerer, Question(EXPLAIN.prompt, ()))
    assert refused.value.reason == "image-missing"


def test_how_a_person_types_does_not_matter(tiny_folder: Path, frame: bytes) -> None:
    reader = PromptReader(checkpoints.load(tiny_folder).processor)
    telemetry = {"Vehicle.Speed": 36.0, "Vehicle.Acceleration.Longitudinal": -1.0}
    typed = reader.read(Question("What is the car doing, and why?".replace(",", ""), (frame,), telemetry))
    assert (
        typed["input_ids"].tolist() == reader.read(Question(EXPLAIN.prompt, (frame,), telemetry))["input_ids"].tolist()
    )


def test_every_word_of_the_questions_is_known(tiny_folder: Path, frame: bytes) -> None:
    processor = checkpoints.load(tiny_folder).processor
    unknown = processor.tokenizer.unk_token_id  # pyright: ignore[reportAttributeAccessIssue]
    reader = PromptReader(processor)
    for kind in KINDS.values():
        for telemetry in ({}, {"Vehicle.Speed": 999.0, "Vehicle.AngularVelocity.Yaw": -2.4}):
            assert unknown not in reader.read(Question(kind.prompt, (frame,), telemetry))["input_ids"]


def test_frames_are_squeezed_once_and_bilinearly(tiny_folder: Path, frame: bytes) -> None:
    """What training does by hand for speed is what the saved processor does."""
    inputs = PromptReader(checkpoints.load(tiny_folder).processor).read(Question(EXPLAIN.prompt, (frame,)))
    squeezed = Image.open(io.BytesIO(frame)).resize((64, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(squeezed, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(inputs["pixel_values"][0, 0].numpy(), expected, atol=1e-6)


def test_quality_comes_from_the_card(write_model: Callable[..., Path]) -> None:
    folder = write_model()
    card = {"name": "my-model", "quality": {"edge": {"explain": 0.7}, "cloud": {"explain": 0.9}}}
    (folder / "card.json").write_text(json.dumps(card))
    edge, cloud = edge_answerer(str(folder)), cloud_answerer(str(folder))
    assert (edge.model, edge.modes) == ("my-model", {"edge": "standalone", "edge+cloud": "ce"})
    # The card says nothing of the two together: at least what the edge can by itself.
    assert edge.quality == {"edge": {"explain": 0.7}, "edge+cloud": {"explain": 0.7}}
    assert (cloud.model, cloud.modes, cloud.quality) == ("my-model", {"cloud": "full"}, {"cloud": {"explain": 0.9}})
    assert edge.model_hash == cloud.model_hash


def test_the_hash_tells_models_apart(tiny_folder: Path, write_model: Callable[..., Path]) -> None:
    other = write_model(seed=1)
    assert checkpoints.load(tiny_folder).digest == checkpoints.load(tiny_folder).digest
    assert checkpoints.load(tiny_folder).digest != checkpoints.load(other).digest


def _truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-family"}')


def _break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _drop_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.text_model.layers.3.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _remove_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _break_card(folder: Path) -> None:
    (folder / "card.json").write_text("not json")


@pytest.mark.parametrize(
    "damage",
    [
        _truncate_weights,
        _remove_weights,
        _break_config,
        _break_tokenizer,
        _drop_a_weight,
        _remove_chat_template,
        _break_card,
    ],
)
def test_a_broken_folder_is_one_line_that_says_what_to_do(
    damage: Callable[[Path], None], write_model: Callable[..., Path]
) -> None:
    folder = write_model()
    damage(folder)
    with pytest.raises(ModelError, match="restore") as error:
        edge_answerer(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder", "/no/such/folder", "a/b/c"])
def test_an_unknown_name_never_reaches_for_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("asked the network for a model that cannot be there")

    monkeypatch.setattr("socket.socket.connect", no_network)
    with pytest.raises(ModelError, match="give a model's folder or a Hugging Face id"):
        checkpoints.load(name)


def test_loading_a_folder_is_silent_and_offline(tiny_folder: Path) -> None:
    """In a fresh process, where nothing has silenced the libraries yet."""
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a folder needs no network')\n"
        "socket.socket.connect = refuse\n"
        "from roadside.models.answering import edge_answerer\n"
        "edge_answerer(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tiny_folder)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hub_id_without_a_network_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real code path up to the library's own refusal to go online."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="nobody/no-such-model"):
        checkpoints.load("nobody/no-such-model")


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        checkpoints.load(tmp_path)


def test_importing_the_package_is_cheap() -> None:
    """Whoever imports roadside.models for one of its names must not pay for torch."""
    code = "import sys, roadside.models, roadside.models.questions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not BUNDLED, reason="this checkout has no bundled model (models/bundled)")
@pytest.mark.parametrize("place", PLACES)
def test_the_bundled_model_answers(place: str, frame: bytes) -> None:
    answerer = PLACES[place](None)
    answer = answer_at_once(answerer, Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 0.0}))
    assert answer.text.startswith("the car ")
    assert answer.text.endswith(" .")
    assert all(set(by_kind) == set(KINDS) for by_kind in answerer.quality.values())
    assert torch.get_num_threads() == 1
