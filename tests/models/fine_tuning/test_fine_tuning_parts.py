"""The parts of fine-tuning: answers, moments, prompts, what is trained, the plan, the state on disk, thresholds."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from roadside.bus.errors import ConfigurationError, LogError, ModelError
from roadside.bus.kinds import DESCRIBE, EXPLAIN, HAZARD, KINDS
from roadside.datasets.bddx import Segment
from roadside.datasets.drivelog import DriveLog
from roadside.datasets.findings import Findings
from roadside.datasets.scoring import judge
from roadside.models import checkpoints, fine_tuning_state
from roadside.models.calibration import Votes, calibrate
from roadside.models.fine_tuning import plan_fine_tuning, schedule
from roadside.models.fine_tuning_data import TOO_SMALL, choose_stops, gather, right_answer
from roadside.models.fine_tuning_examples import ExampleWriter, made_ahead
from roadside.models.fine_tuning_model import VOICES, Tuner, answer_losses, with_adapters
from roadside.models.fine_tuning_options import FineTuningOptions
from roadside.models.fine_tuning_plan import count_adapters, count_exits, empty_model, estimate_memory
from roadside.models.fine_tuning_scores import Hearing
from roadside.models.fine_tuning_state import PartialRun
from roadside.models.prompt_encoder import PromptReader
from roadside.models.questions import Question
from torch import optim
from transformers import AutoConfig, CLIPConfig, LlamaConfig

FAMILIES = ("smolvlm_folder", "qwen_folder")
ANSWER = "the car slows down because the light ahead is red ."


# What people wrote, as answers


@pytest.mark.parametrize(
    ("action", "justification", "explained", "hazard"),
    [
        (
            "The car is stopped.",
            "Because the light is red.",
            "The car is stopped because the light is red.",
            "The light is red.",
        ),
        ("the car slows", "traffic is heavy", "The car slows because traffic is heavy.", "Traffic is heavy."),
        ("The car turns left", "to get onto the highway.", "The car turns left to get onto the highway.", None),
        ("The car stops.", "for a red light", "The car stops for a red light.", "A red light."),
    ],
)
def test_the_answer_is_what_people_wrote(action: str, justification: str, explained: str, hazard: str | None) -> None:
    segment = Segment(0, 1, action, justification)
    assert right_answer(EXPLAIN, segment) == right_answer(DESCRIBE, segment) == explained
    if hazard is not None:
        assert right_answer(HAZARD, segment) == hazard


def test_right_answers_are_judged_right(split_log: Path) -> None:
    segments = [segment for row in DriveLog.open(split_log).annotations.rows for segment in row.segments]
    for segment in segments:
        for kind in KINDS.values():
            judgement = judge(kind, right_answer(kind, segment), segment)
            assert False not in (judgement.action_correct, judgement.justification_correct), segment


# Moments


def test_stops_lie_in_their_segments_and_splits(split_log: Path) -> None:
    log = DriveLog.open(split_log)
    names: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        stops = choose_stops(log, split, per_segment=2, seed=1)
        names[split] = {stop.clip.name for stop in stops}
        assert names[split] == set((split_log / f"{split}.txt").read_text().split())
        assert all(stop.segment.start_s <= stop.at_s < stop.segment.end_s for stop in stops)
        assert all(one.at_s <= two.at_s for one, two in pairwise(stops) if one.clip is two.clip)
    again = [stop.at_s for stop in choose_stops(DriveLog.open(split_log), "test", per_segment=2, seed=1)]
    other = [stop.at_s for stop in choose_stops(log, "test", per_segment=2, seed=2)]
    assert again == [stop.at_s for stop in stops] != other
    assert len(choose_stops(log, "test", per_segment=2, seed=1, at_most=3)) == 3


def test_pictures_are_kept_for_the_next_time(split_log: Path, tmp_path: Path) -> None:
    log, findings = DriveLog.open(split_log), Findings()
    stops = choose_stops(log, "val", per_segment=1, seed=0)
    moments = gather(stops, tmp_path, findings)
    assert len(moments) == len(stops)
    assert not findings.counts
    for moment, stop in zip(moments, stops, strict=True):
        assert moment.telemetry == stop.clip.telemetry(stop.at_s)
    moments[0].picture.write_bytes(b"mine")
    assert gather(stops, tmp_path, findings)[0].picture.read_bytes() == b"mine"


def test_what_cannot_be_used_is_counted_by_reason(copied_log: Path, tmp_path: Path) -> None:
    log = DriveLog.open(copied_log)
    tiny, broken = [log.video_paths[row.name] for row in log.annotations.rows if row.split == "train"]
    write_video(tiny, Image.new("RGB", (16, 16)), seconds=30)
    broken.write_bytes(b"not a video")
    info = next(path for name, path in log.info_paths.items() if name in log.annotations.rows[2].clip_id)
    info.write_text("{")
    findings = Findings()
    assert gather(choose_stops(log, "train", per_segment=1, seed=0), tmp_path, findings) == []
    moments = gather(choose_stops(log, "val", per_segment=1, seed=0), tmp_path, findings)
    assert moments
    assert all(moment.telemetry == {} for moment in moments)
    assert findings.counts[TOO_SMALL] > 1
    assert findings.counts["video unreadable"] == 1
    assert findings.counts["info file unreadable"] == len(moments)
    assert broken.stem in findings.examples["video unreadable"][0]


def write_video(path: Path, picture: Image.Image, *, seconds: int) -> None:
    """One picture a second, all the same."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height = picture.size
        stream.pix_fmt = "yuv420p"
        for _ in range(seconds):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


# Prompts and labels


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_answer_is_learnt_and_the_prompt_is_the_served_one(
    family: str, request: pytest.FixtureRequest, frame: bytes
) -> None:
    processor: Any = checkpoints.load(request.getfixturevalue(family)).processor
    question = Question(EXPLAIN.prompt, (frame,), {"Vehicle.Speed": 36.0})
    served = PromptReader(processor).read(question)
    example = ExampleWriter(processor).write(question, ANSWER)
    length = served["input_ids"].shape[1]
    assert example.inputs["input_ids"][0, :length].tolist() == served["input_ids"][0].tolist()
    # What is read after the prompt is the answer, without its last token, which nobody reads any more.
    assert example.inputs["input_ids"][0, length:].tolist() == example.answer[:-1].tolist()
    assert processor.tokenizer.decode(example.answer[:-1]).strip() == ANSWER
    assert example.answer[-1] == processor.tokenizer.eos_token_id
    assert example.inputs["attention_mask"].shape == example.inputs["input_ids"].shape
    assert example.inputs["attention_mask"].all()
    assert example.inputs["pixel_values"].equal(served["pixel_values"])


def test_a_model_without_a_chat_template_is_named(smolvlm_folder: Path, tmp_path: Path, split_log: Path) -> None:
    folder = Path(shutil.copytree(smolvlm_folder, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        plan_fine_tuning(str(folder), split_log)


def test_words_that_the_tokenizer_does_not_know_are_counted(smolvlm_folder: Path) -> None:
    writer = ExampleWriter(checkpoints.load(smolvlm_folder).processor)
    assert writer.unknown_share([ANSWER]) == 0
    assert 0 < writer.unknown_share([ANSWER, "the zeppelin slows down"]) < 0.2


def test_work_ahead_keeps_its_order_and_tells_of_failures() -> None:
    assert list(made_ahead(lambda number: number * number, range(5))) == [0, 1, 4, 9, 16]
    assert list(made_ahead(str, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(made_ahead(lambda number: 1 // number, [1, 0]))


# What is trained


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_adapters_and_exits_and_nothing_else(
    family: str, request: pytest.FixtureRequest, frame: bytes
) -> None:
    checkpoint = checkpoints.load(request.getfixturevalue(family))
    tuner = Tuner(checkpoint.model, (1, 2), rank=4, dropout=0.0)
    with torch.no_grad():
        for name, parameter in tuner.learnt().items():
            if "lora_B" in name:
                parameter.normal_()  # it begins as zeros, behind which nothing has a gradient
    example = ExampleWriter(checkpoint.processor).write(Question(EXPLAIN.prompt, (frame,)), ANSWER)
    losses = answer_losses(tuner(example.inputs, len(example.answer)), example.answer)
    assert losses.shape == (len(VOICES),)
    names = set(tuner.learnt())
    assert all("lora_" in name or name.startswith("exits.") for name in names)
    assert not [name for name in names if "vision" in name or "visual" in name]
    assert len([name for name in names if "lora_" in name]) == 2 * 7 * 4

    losses[1:].sum().backward(retain_graph=True)
    assert moved(tuner) == {name for name in names if name.startswith("exits.")}
    losses[0].backward()
    assert moved(tuner) == names


def moved(module: torch.nn.Module) -> set[str]:
    """The parameters that have a gradient."""
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name for name, gradient in gradients.items() if gradient is not None and bool(gradient.any())}


def test_exits_begin_as_the_final_head_and_are_multiplied_out_exactly(smolvlm_folder: Path, frame: bytes) -> None:
    checkpoint = checkpoints.load(smolvlm_folder)
    tuner = Tuner(checkpoint.model, (1, 2), rank=4, dropout=0.0).eval()
    example = ExampleWriter(checkpoint.processor).write(Question(EXPLAIN.prompt, (frame,)), ANSWER)
    with torch.no_grad():
        hidden = tuner.model.base_model(**example.inputs, output_hidden_states=True).hidden_states
        heard = tuner(example.inputs, len(example.answer))
        for exit_index, layer in enumerate((1, 2)):
            beginning = checkpoint.exits.heads[exit_index](hidden[layer][:, -len(example.answer) :])
            torch.testing.assert_close(heard[1 + exit_index], beginning[0], rtol=1e-3, atol=1e-3)
        for parameter in tuner.exits.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        heard = tuner(example.inputs, len(example.answer))
        for exit_index, head in enumerate(tuner.heads()):
            said = head(hidden[(1, 2)[exit_index]][0, -len(example.answer) :])
            torch.testing.assert_close(said, heard[1 + exit_index], rtol=1e-4, atol=1e-4)


def test_a_decoder_of_another_make_is_named() -> None:
    with pytest.raises(ModelError, match="Llama-like decoder"):
        with_adapters(torch.nn.Sequential(torch.nn.Linear(2, 2)), rank=4, dropout=0.0)


# The plan


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_counts_what_will_be_trained(family: str, request: pytest.FixtureRequest, split_log: Path) -> None:
    folder = request.getfixturevalue(family)
    plan = plan_fine_tuning(str(folder), split_log, FineTuningOptions(rank=4, batch_size=4), device="cpu")
    checkpoint = checkpoints.load(folder)
    assert plan.parameters == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    learnt = Tuner(checkpoint.model, plan.exit_layers, rank=4, dropout=0.0).learnt()
    assert plan.adapters + plan.exits == sum(parameter.numel() for parameter in learnt.values())
    assert plan.training == sum(
        len(row.segments) for row in DriveLog.open(split_log).annotations.rows if row.split == "train"
    )
    assert plan.updates == round(plan.training / 4)
    assert plan.memory.frozen == 4 * plan.parameters
    assert plan.memory.learnt == 16 * (plan.adapters + plan.exits)
    assert plan.fits
    assert json.loads(json.dumps(plan.as_json()))["memory_total_bytes"] == plan.memory.total
    assert len(plan.lines()) == 5


def test_the_estimate_of_activations_is_what_autograd_keeps(smolvlm_folder: Path, frame: bytes) -> None:
    checkpoint = checkpoints.load(smolvlm_folder)
    tuner = Tuner(checkpoint.model, (1, 2), rank=4, dropout=0.05).train()
    question = Question(" ".join([EXPLAIN.prompt] * 30), (frame,))
    example = ExampleWriter(checkpoint.processor).write(question, ANSWER)
    weights = {parameter.untyped_storage().data_ptr() for parameter in tuner.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer_losses(tuner(example.inputs, len(example.answer)), example.answer)
    kept_bytes = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    estimate = estimate_memory(
        checkpoint.model,
        learnt=0,
        positions=example.inputs["input_ids"].shape[1],
        frozen_bytes_each=4,
        computed_bytes_each=4,
    )
    assert estimate.activations == pytest.approx(kept_bytes, rel=0.3)


def test_counts_need_no_weights(qwen_folder: Path) -> None:
    empty = empty_model(AutoConfig.from_pretrained(qwen_folder))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert count_adapters(empty, 4) == 4 * count_adapters(empty, 1)
    assert count_exits(empty, (1, 2)) == 2 * 32 * 33


def test_a_model_that_cannot_be_asked_about_images_is_named(tmp_path: Path, split_log: Path) -> None:
    with pytest.raises(ModelError, match="vision-language model"):
        empty_model(CLIPConfig())
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        plan_fine_tuning(str(tmp_path), split_log)


def test_too_little_memory_is_seen(smolvlm_folder: Path, split_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadside.models.fine_tuning_plan.free_memory", lambda device: 1000)
    assert not plan_fine_tuning(str(smolvlm_folder), split_log).fits


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda log: shutil.rmtree(log / "videos"), "no video of theirs"),
        (lambda log: (log / "train.txt").write_text(""), "train.txt lists no annotated clip"),
        (lambda log: (log / "val.txt").unlink(), "val.txt lists no annotated clip"),
        (lambda log: (log / "annotations.csv").write_text("a,b\n1,2\n"), "BDD-X's columns"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_named(
    copied_log: Path, smolvlm_folder: Path, spoil: Any, says: str
) -> None:
    spoil(copied_log)
    with pytest.raises(LogError, match=says):
        plan_fine_tuning(str(smolvlm_folder), copied_log)


def test_a_device_that_is_not_there_is_named(smolvlm_folder: Path, split_log: Path) -> None:
    with pytest.raises(ConfigurationError, match="--device auto, cpu or cuda"):
        plan_fine_tuning(str(smolvlm_folder), split_log, device="tpu")


# The state on disk


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    partial = PartialRun(tmp_path / "run", {"model": "m"})

    def some_run(updates: int, seed: int) -> tuple[torch.nn.Linear, optim.AdamW]:
        torch.manual_seed(seed)
        layer = torch.nn.Linear(3, 2)
        optimiser = optim.AdamW(layer.parameters(), lr=0.1)
        for _ in range(updates):
            layer(torch.ones(3)).sum().backward()
            optimiser.step()
        return layer, optimiser

    layer, optimiser = some_run(3, seed=0)
    learnt = dict(layer.named_parameters())
    progress = fine_tuning_state.Progress([{"full": 2.0}] * 3, [(0, {"full": 3.0}), (3, {"full": 2.5})])
    assert partial.load(optimiser) is None
    partial.save(learnt, optimiser, progress)
    partial.save(learnt, optimiser, progress)

    other, other_optimiser = some_run(0, seed=1)
    restored = PartialRun(tmp_path / "run", {"model": "m"}).load(other_optimiser)
    assert restored is not None
    assert restored[1] == progress
    assert restored[1].best_update == 3
    other.load_state_dict(restored[0])
    for each in (layer, other):
        each.zero_grad()
        each(torch.ones(3)).sum().backward()
    optimiser.step()
    other_optimiser.step()
    assert other.weight.equal(layer.weight)


@pytest.mark.parametrize("name", ["learnt.safetensors", "optimiser.safetensors", "progress.json"])
def test_a_state_that_is_cut_short_is_named(tmp_path: Path, name: str) -> None:
    partial = PartialRun(tmp_path / "run", {})
    layer = torch.nn.Linear(3, 2)
    optimiser = optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimiser.step()
    partial.save(dict(layer.named_parameters()), optimiser, fine_tuning_state.Progress())
    path = tmp_path / "run" / "state" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ConfigurationError, match=r"damaged or cut short.*begin anew"):
        partial.load(optimiser)


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path: Path) -> None:
    PartialRun(tmp_path / "run", {"model": "a", "options": {"seed": 0}})
    PartialRun(tmp_path / "run", {"model": "a", "options": {"seed": 0}})
    with pytest.raises(ConfigurationError, match="another options"):
        PartialRun(tmp_path / "run", {"model": "a", "options": {"seed": 1}})


# What was heard


def test_what_the_voices_say_is_compared_with_the_answer_and_with_the_whole_model() -> None:
    answer = torch.tensor([1, 2])
    said = torch.tensor([[1, 2], [1, 0], [0, 0]])  # by the whole model and both exits
    logits = 5.0 * torch.nn.functional.one_hot(said, num_classes=3)
    hearing = Hearing()
    hearing.add(logits, answer)
    hearing.add(logits, answer)
    heard = hearing.heard()
    assert heard.token_accuracy() == {"full": 1.0, "exit1": 0.5, "exit2": 0.0}
    assert [votes.agrees.tolist() for votes in heard.votes()] == [[True, False] * 2, [False] * 4]
    sure = torch.softmax(torch.tensor([5.0, 0.0, 0.0]), dim=0)
    assert heard.confidence.flatten().tolist() == pytest.approx([float(sure[0])] * 12)
    assert heard.mean_losses()["exit1"] == pytest.approx(-float(sure[0].log() + sure[1].log()) / 2)


def test_an_exit_to_which_nothing_is_left_has_a_curve_all_the_same() -> None:
    everything = Votes(torch.full((5,), 0.9), torch.ones(5, dtype=torch.bool))
    calibration = calibrate([everything, everything], 0.99)
    assert calibration.thresholds == pytest.approx((0.9, 1.0), abs=2e-4)
    assert {point.spoken_share for point in calibration.curves[1]} == {0.0}


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [schedule(step / 100, 0.1) for step in range(100)]
    assert 0 < rates[0] < 0.2
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.1
