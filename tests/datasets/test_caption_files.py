"""Generated captions: every format comes to the same, and what does not fit its references is refused by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from roadside.bus.errors import LogError
from roadside.datasets.bddx import Segment
from roadside.datasets.caption_files import read_generated
from roadside.datasets.findings import Findings
from roadside.datasets.motion_metrics import Motion
from roadside.datasets.references import Reference, rag_driver_references

TEXTS = {str(number): (f"The car stops {number} times", f"because of {number} lights") for number in range(12)}
REFERENCES = [Reference(name, Segment(0, 1, *texts)) for name, texts in TEXTS.items()]


def read(*paths: Path, references: list[Reference] | None = None, findings: Findings | None = None):
    return read_generated(paths, references or REFERENCES, findings or Findings())


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def coco(path: Path, part: int, *, results: bool = False) -> Path:
    entries = [
        {"image_id": name, "id": index, "caption": texts[part]} for index, (name, texts) in enumerate(TEXTS.items())
    ]
    path.write_text(json.dumps(entries if results else {"images": [], "annotations": entries}))
    return path


def test_every_format_comes_to_the_same(tmp_path):
    # Other orders than that of the references.
    rows = [[name, *texts] for name, texts in reversed(TEXTS.items())]
    objects = [{"id": name, "action": action, "justification": reason} for name, action, reason in rows]
    whole = [{"id": name, "caption": f"{action} {reason}"} for name, action, reason in rows]
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    sources = [
        [write_csv(tmp_path / "table.csv", ["id", "action", "justification"], rows)],
        [tmp_path / "objects.json"],
        [tmp_path / "whole.json"],
        [coco(tmp_path / "x_action.json", 0), coco(tmp_path / "x_justification.json", 1)],
        [coco(tmp_path / "y_action.json", 0, results=True), coco(tmp_path / "y_justification.json", 1, results=True)],
    ]
    for source in sources:
        generated = read(*source)
        assert generated.parts == ("action", "justification")
        assert [(each.action, each.justification) for each in generated.captions] == list(TEXTS.values())


def test_one_part_alone_and_predicted_motion(tmp_path):
    rows = [[name, action, "3.5" if name == "0" else "", ""] for name, (action, _) in TEXTS.items()]
    generated = read(write_csv(tmp_path / "a.csv", ["id", "action", "speed_mps", "course_deg"], rows))
    assert generated.parts == ("action",)
    assert generated.motions[:2] == (Motion(3.5, None), Motion())


def test_empty_captions_are_counted_by_name_and_kept(tmp_path):
    rows = [[name, "" if name == "3" else action, reason] for name, (action, reason) in TEXTS.items()]
    findings = Findings()
    generated = read(write_csv(tmp_path / "a.csv", ["id", "action", "justification"], rows), findings=findings)
    assert generated.captions[3].action == ""
    assert findings.counts == {"empty caption (action)": 1}
    assert findings.examples == {"empty caption (action)": ["3"]}


def swapped(tmp_path: Path) -> Path:
    rows = [[name, reason, action] for name, (action, reason) in TEXTS.items()]
    return write_csv(tmp_path / "a.csv", ["id", "action", "justification"], rows)


def short(tmp_path: Path) -> Path:
    rows = [[name, *texts] for name, texts in list(TEXTS.items())[:5]]
    return write_csv(tmp_path / "a.csv", ["id", "action", "justification"], rows)


def unknown(tmp_path: Path) -> Path:
    rows = [[name, *texts] for name, texts in [*TEXTS.items(), ("77", ("a", "b"))]]
    return write_csv(tmp_path / "a.csv", ["id", "action", "justification"], rows)


def twice(tmp_path: Path) -> Path:
    rows = [[name, *texts] for name, texts in [*TEXTS.items(), ("3", ("a", "b"))]]
    return write_csv(tmp_path / "a.csv", ["id", "action", "justification"], rows)


def headless(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "a.csv", ["0", "The car stops"], [["1", "The car goes"]])


def without_id(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text(json.dumps([{"action": "The car stops"}]))
    return tmp_path / "a.json"


def no_number(tmp_path: Path) -> Path:
    rows = [[name, texts[0], "fast"] for name, texts in TEXTS.items()]
    return write_csv(tmp_path / "a.csv", ["id", "action", "speed_mps"], rows)


def motion_only(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "a.csv", ["id", "speed_mps"], [[name, "3"] for name in TEXTS])


def text(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("The car stops")
    return tmp_path / "a.json"


def number(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("3")
    return tmp_path / "a.json"


def nothing(tmp_path: Path) -> Path:
    return tmp_path / "nothing.csv"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (swapped, "12 of 12 actions in .*begin with because.*swap the columns"),
        (short, r"lacks captions for 7 ids \(5, 6, 7, 8, 9, ...\); there are 12 references and 5 captions"),
        (unknown, r"unknown 1 ids \(77\)"),
        (twice, "second action for id 3"),
        (headless, "needs a header line"),
        (without_id, "entry 1 .* has no id"),
        (no_number, "speed_mps of id 0 is 'fast'"),
        (motion_only, "holds no caption"),
        (text, "cannot be read as JSON"),
        (number, "does not hold captions"),
        (nothing, "cannot be read as CSV"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, make, says):
    with pytest.raises(LogError, match=says):
        read(make(tmp_path))


def write_rag_driver(folder: Path, motion: dict) -> None:
    coco(folder / "BDDX_Test_coco_action.json", 0)
    coco(folder / "BDDX_Test_coco_justification.json", 1)
    (folder / "BDDX_Test_control_signal.json").write_text(json.dumps(motion))


def test_rag_driver_s_files(tmp_path):
    write_rag_driver(tmp_path, {name: {"speed": 10.0 if name != "2" else -1.0, "course": -3.0} for name in TEXTS})
    references = rag_driver_references(tmp_path)
    assert [(each.segment.action, each.segment.justification) for each in references] == list(TEXTS.values())
    assert references[0].telemetry == {"Vehicle.Speed": 36.0, "Vehicle.AngularVelocity.Yaw": -3.0}
    assert references[0].next_motion == Motion(10.0, -3.0)
    assert references[0].known == {}, "its speed is what is to be predicted"
    assert references[2].next_motion == Motion(None, -3.0), "-1 is no speed"
    assert references[2].telemetry == {"Vehicle.AngularVelocity.Yaw": -3.0}


def test_rag_driver_s_files_that_do_not_belong_together(tmp_path):
    write_rag_driver(tmp_path, {"0": {"speed": 1.0, "course": 0.0}})
    with pytest.raises(LogError, match="do not belong together"):
        rag_driver_references(tmp_path)
