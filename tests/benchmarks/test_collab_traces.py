"""Decoding traces of the bundled model, what is made of them, and the bench from one end to the other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from roadside.benchmarks.collab import CollabOptions, measure_collab, profile_named
from roadside.benchmarks.collab_calibration import calibrated_thresholds
from roadside.benchmarks.collab_cells import Cell, Taken
from roadside.benchmarks.collab_clock import VirtualLink
from roadside.benchmarks.collab_contenders import Contender, half_asking, replay
from roadside.benchmarks.collab_edge import Vote, whole_answer
from roadside.benchmarks.collab_goals import goal
from roadside.benchmarks.collab_model import TracingModel
from roadside.benchmarks.collab_paper import replay_workload
from roadside.benchmarks.collab_profiles import PAPER
from roadside.benchmarks.collab_rows import mean, token_identity
from roadside.benchmarks.collab_statistical import ALPACA, THRESHOLDS, answers
from roadside.benchmarks.collab_tables import for_a_person
from roadside.benchmarks.collab_throughput import measure_throughput
from roadside.benchmarks.collab_timing import fitted, measured_profile, random_profile
from roadside.benchmarks.collab_traces import TraceLibrary
from roadside.bus.errors import ConfigurationError
from roadside.bus.tensors import TensorType
from roadside.datasets.evaluation_scenes import rendered_scenes
from roadside.datasets.link_traces import parse_link
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.questions import answer_at_once

SCENES = 4


@pytest.fixture(scope="module")
def model() -> TracingModel:
    return TracingModel()


@pytest.fixture(scope="module")
def rendered():
    return list(rendered_scenes(SCENES))


@pytest.fixture
def scenes(model, rendered, tmp_path):
    return list(TraceLibrary(model, tmp_path / "traces").scenes(rendered))


def test_a_trace_says_what_the_nodes_models_say(model, scenes):
    cloud, edge = cloud_answerer(None), edge_answerer(None)
    for scene in scenes:
        tokens = whole_answer(scene, max_tokens=scene.question.max_tokens)
        assert tokens == answer_at_once(cloud, scene.question).tokens
        alone = answer_at_once(edge, scene.question)
        for length, (token, speaker) in enumerate(zip(alone.tokens, alone.made_by, strict=True)):
            first, second = scene.at_exits(alone.tokens[:length])
            assert (first.confidence >= model.thresholds[0]) == (speaker == "exit1")
            assert token == (first if speaker == "exit1" else second).token


def test_a_walk_finds_its_way_back_from_anywhere(model, scenes):
    """Whatever was asked before, an answer is what a fresh walk would give."""
    scene = scenes[0]
    right = whole_answer(scene, max_tokens=scene.question.max_tokens)
    wrong = (right[0], right[2], right[1])
    walk = model.walk(model.prompt(scene.question))
    for tokens in (right[:4], wrong, right[:6], (), right[:5], wrong[:2], wrong[:2]):
        fresh = model.walk(model.prompt(scene.question))
        assert_alike(walk.at_end(tokens, "float32"), fresh.at_end(tokens, "float32"))
        for one, other in zip(walk.at_exits(tokens), fresh.at_exits(tokens), strict=True):
            assert_alike(one, other)


def test_context_is_rounded_as_on_the_wire(model, scenes):
    prompt = model.prompt(scenes[0].question)
    exact = model.walk(prompt).at_end((), "float32")
    tolerances: dict[TensorType, float] = {"float16": 0.02, "bfloat16": 0.2, "int8": 0.5}
    for context, tolerance in tolerances.items():
        margin = model.walk(prompt).at_end((), context).margin
        assert margin != exact.margin
        assert margin == pytest.approx(exact.margin, abs=tolerance)


def test_traces_are_kept_for_the_next_bench(model, rendered, tmp_path, monkeypatch):
    path = tmp_path / "cache" / "traces"
    library = TraceLibrary(model, path)
    known = [whole_answer(scene, max_tokens=32) for scene in library.scenes(rendered)]
    library.save()
    monkeypatch.setattr(TracingModel, "walk", None)
    again = list(TraceLibrary(model, path).scenes(rendered))
    assert [whole_answer(scene, max_tokens=32) for scene in again] == known
    assert not any(scene.grown for scene in again)


@pytest.mark.parametrize("damage", ["another question", "half a file", "another model"])
def test_traces_of_something_else_are_made_anew(model, rendered, tmp_path, damage):
    path = tmp_path / "traces"
    library = TraceLibrary(model, path)
    for scene in library.scenes(rendered[:1]):
        whole_answer(scene, max_tokens=3)
    library.save()
    scene = rendered[0]
    if damage == "another question":
        scene = replace(scene, reference=replace(scene.reference, telemetry={"Vehicle.Speed": 12.0}))
    elif damage == "half a file":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes(path.read_bytes().replace(model.digest.encode(), model.digest[::-1].encode()))
    (fresh,) = TraceLibrary(model, path).scenes([scene])
    assert fresh.trace.ends == {}


def test_half_of_the_tokens_are_asked_for_at_the_threshold_for_that():
    recordings = answers(replace(ALPACA, request_share=0.3), 5)
    assert half_asking(recordings, max_tokens=100, share=0.2) == (0.0, 0.0)
    assert half_asking(recordings, max_tokens=100, share=0.5) == (1.0, 1.0)


def test_at_the_calibrated_theta_every_answer_means_what_the_whole_model_s_does(scenes):
    thresholds = calibrated_thresholds(scenes)
    link = VirtualLink(parse_link("1Gbps,0ms"))

    def alike(theta):
        for scene in scenes:
            whole = whole_answer(scene, max_tokens=32)
            said = replay(Contender("ce", "ce", (theta, theta)), scene, PAPER, link, max_tokens=32).generation.tokens
            yield scene.caption(tuple(said)).classes == scene.caption(whole).classes

    assert all(alike(thresholds[0]))
    assert thresholds[0] == thresholds[1] >= 0.8


def test_calibration_is_led_on_by_the_scene_that_needs_most(scenes, monkeypatch):
    """An exit that is nearly sure that nothing is to be said rules out every theta below its confidence."""
    silence = Vote(scenes[0].end_token, 0.96, 1.0)
    monkeypatch.setitem(scenes[0].trace.exits, (), (silence, silence))
    theta, _ = calibrated_thresholds(scenes[:1])
    assert theta == 0.97


def test_the_paper_s_workload_has_its_proportions():
    taken = replay_workload(ALPACA, PAPER, 10)
    assert mean(taken["ce"], "bytes_up") == (30 + 99) * 4096 * 2
    assert mean(taken["ce"], "bytes_up") <= 0.01 * mean(taken["naive"], "bytes_up")
    asked = sum(each.cloud_requests for each in taken["ce"]) / sum(len(each.tokens) for each in taken["ce"])
    assert asked == pytest.approx(ALPACA.request_share, abs=0.06)
    # Table I: 370 s for 100 answers.
    assert mean(taken["cloud"], "total_ms") == pytest.approx(3702, rel=0.01)
    assert THRESHOLDS == (0.8, 0.8)


def test_tokens_are_the_same_where_they_stand_in_the_same_place():
    def said(*tokens):
        return Taken(tokens, (), 0, 0, 0, 0, 0, 0, 0, 0)

    assert token_identity([said(1, 2, 3)], [said(1, 2, 3)]) == 1
    assert token_identity([said(1, 9, 3)], [said(1, 2, 3)]) == pytest.approx(2 / 3)
    assert token_identity([said(1, 2)], [said(1, 2, 3, 4)]) == 0.5
    assert token_identity([said(1, 2, 3, 4)], [said(1, 2)]) == 0.5


def test_a_goal_knows_its_direction():
    assert goal("time", 0.9, "at most", 0.95)["met"]
    assert not goal("time", 0.96, "at most", 0.95)["met"]
    assert goal("points", -0.5, "at least", -1.0)["met"]


def test_costs_are_fitted_by_a_line_that_costs_nothing_below_zero():
    assert fitted([(1, 2.1), (10, 3.0), (40, 6.0)]).of(20) == pytest.approx(4.0)
    falling = fitted([(1, 3.0), (40, 2.0)])
    assert falling.position_ms == 0


def test_this_machine_s_costs_are_of_the_right_order(model, scenes):
    profile = measured_profile(model, scenes)
    assert profile.cut.hidden_size == model.edge.first.hidden_size
    assert 0 < profile.first.of(1) < profile.rest.of(1) < profile.whole.of(1)
    assert profile.rest.of(40) > profile.rest.of(1)


def test_random_weights_of_any_size_can_be_timed():
    profile = random_profile(device="cpu", layers=8, hidden_size=128)
    assert (profile.cut.first_exit, profile.cut.second_exit, profile.cut.layers) == (2, 4, 8)
    assert min(profile.first.of(1), profile.rest.of(1)) > 0
    with pytest.raises(ConfigurationError, match="multiple of 128"):
        random_profile(device="cpu", layers=8, hidden_size=100)


def test_random_weights_need_the_device_that_is_named():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigurationError, match="no cuda"):
        random_profile(device="cuda", layers=8, hidden_size=128)


def test_several_edges_at_once_say_what_each_says_alone(model, scenes):
    throughput = measure_throughput(model, scenes, edges=2)
    answers_of_all = sum(len(whole_answer(scene, max_tokens=32)) for scene in scenes)
    assert throughput.tokens == answers_of_all
    # A tie may fall otherwise by rounding.
    assert max(throughput.margins, default=0.0) < 1e-3


def test_a_cell_s_label_names_files_without_their_folders(tmp_path):
    trace = tmp_path / "city.up"
    trace.write_text("1\n2\n")
    assert Cell(f"{trace},20ms").label == "city.up,20ms"


def test_a_profile_has_a_known_name():
    assert profile_named("measured") == "measured"
    with pytest.raises(ConfigurationError, match="paper, fast-cloud, measured"):
        profile_named("fast")


def test_the_bench_from_one_end_to_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = CollabOptions(
        link="50Mbps,10ms",
        scenes=SCENES,
        calibration_scenes=2,
        paper_answers=1,
        plot=tmp_path / "plots",
        timeline=tmp_path / "timelines",
    )
    result, pictures = measure_collab(options)
    json.dumps(result)
    rows = {row["mode"]: row for row in result["rows"]}
    assert rows.keys() >= {"cloud", "naive", "naive-kv", "standalone", "ce", "ce-sync", "ce-half", "ce-optimistic"}
    assert rows.keys() >= {"through", "through-hidden", "through-tokens", "through-int8", "auto", "auto-lossy"}
    assert {row["link"] for row in result["rows"]} == {"50Mbps,10ms"}
    for lossless in ("cloud", "naive", "naive-kv", "through", "through-tokens", "auto"):
        assert rows[lossless]["token_identity"] == 1
        assert rows[lossless]["task_accuracy"] == rows["cloud"]["task_accuracy"]
    assert rows["standalone"]["bytes_up"] == rows["standalone"]["cloud_ms"] == 0
    assert rows["naive"]["bytes_up"] > 10 * rows["ce"]["bytes_up"]
    assert len(result["cells"]) >= 12 * len(rows)
    assert {line["data"] for line in result["table_1"]} == {"Alpaca", "XSum", "driving scenes"}
    shown = for_a_person(result)
    assert {line["link"] for line in shown["total ms by link"]} == {row["link"] for row in result["cells"]} | {
        "50Mbps,10ms"
    }
    assert {line["met"] for line in shown["goals"]} <= {"yes", "NO"}
    elsewhere, _ = measure_collab(CollabOptions(profile="fast-cloud", scenes=2, calibration_scenes=2, paper_answers=1))
    assert elsewhere["goals"] == []
    assert "ratios" in for_a_person(elsewhere)
    names = {path.stem for path in pictures}
    assert names >= {"total", "bytes", "figure-1", "figure-3", "ce", "ce-optimistic", "through-hidden", "naive"}
    assert all(path.stat().st_size > 5_000 for path in pictures)
    assert list((tmp_path / "cache" / "roadside").iterdir())


def assert_alike(one: Vote, other: Vote) -> None:
    assert one.token == other.token
    assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
