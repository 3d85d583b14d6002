"""Examples from a rendered log, and the chat that is made of them."""

from __future__ import annotations

import base64
import io
import shutil

import pytest
from PIL import Image
from roadside.bus.errors import LogError
from roadside.bus.kinds import DESCRIBE, EXPLAIN, HAZARD
from roadside.cloud_node.backends.examples import Example, Examples
from roadside.cloud_node.backends.prompts import chat, example_answer, without_pictures
from roadside.datasets.bddx import Segment
from roadside.datasets.drivelog import DriveLog
from roadside.datasets.signals import SPEED_KMH, YAW_RATE_DEG_S

RED = ("The car stops", "because the light ahead is red.")
GREEN = ("The car accelerates", "because the light ahead is green.")
UNKNOWN = ("The car does something", "for reasons of its own.")


def driving(kmh: float, turn: float = 0.0) -> dict[str, float]:
    return {SPEED_KMH: kmh, YAW_RATE_DEG_S: turn}


def moment(name: str, words: tuple[str, str], telemetry: dict[str, float]) -> Example:
    return Example(name, f"data:image/jpeg;base64,{name}", telemetry, Segment(0.0, 1.0, *words))


def names(chosen: list[Example]) -> list[str]:
    return [each.id for each in chosen]


def test_they_come_from_the_training_split_alone_and_the_seed_decides(training_log):
    first, again = (Examples.of_log(training_log, seed=1, size=4) for _ in range(2))
    other = Examples.of_log(training_log, seed=2, size=4)
    of_training = {row.clip_id for row in DriveLog.open(training_log).annotations.rows if row.split == "train"}
    chosen = first.nearest(EXPLAIN, driving(30), 4)
    assert chosen
    assert {each.id.rsplit("/", 1)[0] for each in chosen} == of_training
    assert names(chosen) == names(again.nearest(EXPLAIN, driving(30), 4))
    everything = len(Examples.of_log(training_log, seed=1))
    assert everything > 4, "the size chose between several"
    assert set(names(first.nearest(EXPLAIN, {}, 99))) != set(names(other.nearest(EXPLAIN, {}, 99)))


def test_their_pictures_are_the_logs_own(training_log):
    (chosen,) = Examples.of_log(training_log, seed=1, size=8).nearest(EXPLAIN, driving(0), 1)
    form, _, data = chosen.picture_url.partition(",")
    assert form == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        (clip,) = (each for each in DriveLog.open(training_log).clips if each.name == chosen.id.rsplit("/", 1)[0])
        assert picture.size == clip.frame(0.0).size
        clip.close()


def test_a_log_without_training_videos_is_refused_with_what_to_do(training_log, tmp_path):
    folder = tmp_path / "log"
    shutil.copytree(training_log, folder)
    (folder / "train.txt").write_text("")
    with pytest.raises(LogError, match=r"train\.txt"):
        Examples.of_log(folder, seed=0)


def test_the_most_similar_moment_stands_next_to_the_question():
    examples = Examples([moment("slow", RED, driving(5)), moment("fast", GREEN, driving(90))])
    assert names(examples.nearest(EXPLAIN, driving(80), 2)) == ["slow", "fast"]
    assert names(examples.nearest(EXPLAIN, driving(0), 2)) == ["fast", "slow"]
    assert names(examples.nearest(EXPLAIN, driving(0), 1)) == ["slow"]


def test_one_reason_is_not_repeated_while_there_are_others():
    examples = Examples([moment("a", RED, driving(0)), moment("b", RED, driving(1)), moment("c", GREEN, driving(50))])
    assert names(examples.nearest(EXPLAIN, driving(0), 2)) == ["c", "a"]
    assert names(examples.nearest(EXPLAIN, driving(0), 3)) == ["b", "c", "a"]


def test_a_moment_whose_words_say_nothing_for_a_kind_is_no_example_of_it():
    examples = Examples([moment("vague", UNKNOWN, driving(0)), moment("clear", RED, driving(90))])
    assert names(examples.nearest(HAZARD, driving(0), 2)) == ["clear"]


def test_missing_telemetry_neither_wins_nor_fails():
    examples = Examples(
        [moment("blind", RED, {}), moment("same", GREEN, driving(0)), moment("far", RED, driving(120, turn=40))]
    )
    assert names(examples.nearest(EXPLAIN, driving(0), 1)) == ["same"]
    assert len(examples.nearest(EXPLAIN, {}, 3)) == 3


@pytest.mark.parametrize(
    ("kind", "justification", "expected"),
    [
        (EXPLAIN, "because the light is red.", "the car stops because the light is red ."),
        (EXPLAIN, "the light is red", "the car stops because the light is red ."),
        (EXPLAIN, "to enter another road", "the car stops to enter another road ."),
        (HAZARD, "because the light is red.", "the light is red ."),
        (DESCRIBE, "Since the light  is red", "the car stops since the light is red ."),
    ],
)
def test_an_example_answers_in_the_way_of_the_question(kind, justification, expected):
    assert example_answer(kind, Segment(0.0, 1.0, "The car stops.", justification)) == expected


def test_a_chat_is_instructions_then_examples_then_the_question():
    examples = [moment("a", RED, driving(0))]
    messages = chat("be brief", examples, EXPLAIN, EXPLAIN.prompt, b"\x89PNG...", driving(36))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "the car stops because the light ahead is red ."
    picture, words = messages[3]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert words["text"] == f"speed 10 accel ? course 0 {EXPLAIN.prompt}"
    assert chat("", [], EXPLAIN, "why ?", b"\xff\xd8", {})[0]["role"] == "user"


def test_the_same_chat_without_pictures_keeps_its_words():
    messages = chat("be brief", [moment("a", RED, {})], EXPLAIN, "why ?", b"\xff\xd8", {})
    blind = without_pictures(messages)
    assert "image_url" not in str(blind)
    assert [message["role"] for message in blind] == [message["role"] for message in messages]
    assert blind[3]["content"] == [messages[3]["content"][1]]
