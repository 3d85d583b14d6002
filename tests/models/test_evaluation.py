"""A tiny model through every voice: whole, blind, early exits, together, and each threshold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from roadside.bus.errors import ConfigurationError, ModelError
from roadside.datasets.evaluation_scenes import EvaluationScene, obscured_scenes, rendered_scenes
from roadside.datasets.findings import Findings
from roadside.models.evaluation import (
    BLANK,
    EDGE,
    FULL,
    HIDDEN_BOTH,
    HIDDEN_NEWEST,
    TOGETHER,
    evaluate_model,
)
from roadside.models.theta_curve import draw_theta_curve


@pytest.fixture(scope="module")
def scenes() -> list[EvaluationScene]:
    return list(rendered_scenes(3))


@pytest.fixture(scope="module")
def evaluated(tiny_folder: Path, scenes):
    findings, steps = Findings(), []
    done = evaluate_model(
        str(tiny_folder),
        scenes,
        findings,
        obscured=obscured_scenes(2),
        thetas=(0.0, 1.1),
        theta_scenes=2,
        advance=steps.append,
    )
    assert steps == [1] * 5
    assert findings.counts == {}
    return done


def test_every_voice_has_a_row(evaluated, scenes):
    assert [row["name"] for row in evaluated.rows] == [
        FULL, BLANK, EDGE, TOGETHER, "theta 0", "theta 1.1", HIDDEN_NEWEST, HIDDEN_BOTH
    ]  # fmt: skip
    assert [row["n"] for row in evaluated.rows] == [3, 3, 3, 3, 2, 2, 2, 2]
    assert evaluated.references == [scene.reference for scene in scenes]


def test_thresholds_span_from_the_edge_alone_to_the_whole_model(evaluated):
    never, always = (row for row in evaluated.rows if "theta" in row)
    assert never["cloud_token_share"] == 0.0
    assert (always["cloud_token_share"], always["identical_to_full"], always["agrees_with_full"]) == (1.0, 1.0, 1.0)
    # Hidden states go up whether or not anything is asked.
    assert never["bytes_up"] > 0
    assert evaluated.rows[2]["exit1_token_share"] + evaluated.rows[2]["exit2_token_share"] == pytest.approx(1.0)


def test_the_curve_is_drawn(evaluated, tmp_path):
    draw_theta_curve(evaluated.rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="cannot write"):
        draw_theta_curve(evaluated.rows, tmp_path / "nowhere" / "curve.png")


def test_a_scene_that_the_model_refuses_is_counted_and_left_out(tiny_folder, scenes):
    findings = Findings()
    broken = replace(scenes[0], jpeg=b"no picture")
    done = evaluate_model(str(tiny_folder), [broken, scenes[1]], findings)
    assert done.references == [scenes[1].reference]
    assert {row["n"] for row in done.rows} == {1}
    assert findings.counts == {"scene refused: image-format": 1}
    assert findings.examples["scene refused: image-format"] == [scenes[0].reference.id]
    with pytest.raises(ModelError, match="answered about no scene"):
        evaluate_model(str(tiny_folder), [broken], findings)
