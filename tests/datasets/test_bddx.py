"""BDD-X's format: what is written is read back, and dirt is counted, not trusted."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import LogError
from roadside.datasets.bddx import COLUMNS, Segment, read_annotations, write_annotations

REAL_CSV = Path(__file__).parents[3] / "shared" / "data" / "bddx" / "BDD-X-Annotations_v1.csv"

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40).map(
    lambda text: f"x{text}".strip()
)


@st.composite
def segment_lists(draw: st.DrawFn) -> tuple[Segment, ...]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=15))
    segments, start_s = [], 0
    for length_s in lengths:
        action = draw(texts)
        segments.append(Segment(float(start_s), float(start_s + length_s), f"a{action}", f"j{draw(texts)}"))
        start_s += length_s
    return tuple(segments)


def write_table(folder: Path, rows: list[list[str]]) -> Path:
    path = folder / "annotations.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([row + [""] * (len(COLUMNS) - len(row)) for row in rows])
    return path


@given(st.lists(segment_lists(), min_size=1, max_size=4))
def test_what_is_written_is_read_back(videos):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        named = [(f"videos/clip{index}.mp4", segments) for index, segments in enumerate(videos)]
        write_annotations(folder, named, split="val")
        read = read_annotations(folder / "annotations.csv")
    assert [row.segments for row in read.rows] == [tuple(segments) for segments in videos]
    assert [row.clip_id for row in read.rows] == [f"{index + 1}_clip{index}" for index in range(len(videos))]
    assert {row.split for row in read.rows} == {"val"}
    assert read.complete["val"] == read.complete["complete"] == sum(map(len, videos))
    assert read.dropped.counts == read.kept.counts == {}


def test_the_table_has_the_61_columns_and_line_ends_of_bddx(tmp_path):
    write_annotations(tmp_path, [("videos/a.mp4", [Segment(0, 4, "The car stops.", "because of it.")])], split="test")
    header, row = (tmp_path / "annotations.csv").read_bytes().split(b"\r\n")[:2]
    assert header.startswith(b"Input.Video,Answer.1start,Answer.1end,Answer.1action,Answer.1justification,")
    assert header.count(b",") == row.count(b",") == 60
    # Both written seconds are inclusive.
    assert row.startswith(b"videos/a.mp4,0,3,")
    assert (tmp_path / "test.txt").read_text() == "1_a\n"
    assert (tmp_path / "train.txt").read_text() == ""


def test_more_segments_than_slots_are_refused(tmp_path):
    segments = [Segment(second, second + 1, "a", "b") for second in range(16)]
    with pytest.raises(ValueError, match="room for 15"):
        write_annotations(tmp_path, [("a.mp4", segments)], split="test")


def test_dirt_is_dropped_by_reason_and_the_rest_is_kept(tmp_path):
    url = "https://somewhere.test/samples/abc-123.mov"
    rows = [
        [],
        [url, "0", "4", "The car stops", "because", "5", "", "The car goes", "as it can"],
        [],
        [url, "9", "3", "The car stops", "because", "5", "5", "The car goes", "as it can"],
        ["", "0", "4", "The car stops", "because"],
        [url, "0", "3230", "The car stops", "because", "", "", "", "", "7", "9", "The car goes", "as it can"],
        [url, "0", "4", "X", "X", "3", "x", "The car goes", "as it can"],
        [url, "0", "4", "because the light is red", "The car is stopped"],
    ]
    read = read_annotations(write_table(tmp_path, rows))
    assert (read.row_count, read.blank_rows, read.videos) == (8, 2, 5)
    assert read.dropped.counts == {
        "part missing": 1,
        "end before start": 1,
        "row without a video or a first annotation": 1,
        "end beyond any video": 1,
        "justification repeats action": 1,
        "time is not a number": 1,
    }
    assert read.dropped.examples["end before start"] == ["row 4 slot 1"]
    assert read.kept.counts == {"empty slot before a filled one": 1, "action and justification swapped": 1}
    # Numbers count usable rows only.
    assert [row.clip_id for row in read.rows] == [f"{number}_abc-123" for number in range(1, 6)]
    kept = [[(segment.start_s, segment.end_s) for segment in row.segments] for row in read.rows]
    assert kept == [[(0, 5)], [(5, 6)], [(7, 10)], [], [(0, 5)]]
    swapped = read.rows[4].segments[0]
    assert (swapped.action, swapped.justification) == ("The car is stopped", "because the light is red")


def test_a_file_in_another_format_is_refused(tmp_path):
    path = tmp_path / "annotations.csv"
    for content in (b"", b"a,b,c\r\n1,2,3\r\n", b"\x00\xff\x00"):
        path.write_bytes(content)
        with pytest.raises(LogError, match=r"roadside log make|BDD-X"):
            read_annotations(path)


def test_the_real_annotations():
    if not REAL_CSV.is_file():
        pytest.skip(
            "BDD-X's annotations are not beside the repository (../shared/data/bddx): the real dirt is untested"
        )
    read = read_annotations(REAL_CSV)
    assert (read.row_count, read.blank_rows, read.videos) == (12_997, 5_998, 6_999)
    assert dict(read.complete) == {"complete": 26_521, "train": 21_135, "val": 2_514, "test": 2_856}
    assert sum(row.split is not None for row in read.rows) == 6_984
    assert read.dropped.counts["end before start"] == 9
    assert read.dropped.counts["end beyond any video"] == 5
    assert "split id that matches no row" not in read.dropped.counts


def test_split_ids_that_match_nothing_are_counted_and_named(tmp_path):
    path = write_table(tmp_path, [["a.mp4", "0", "4", "The car stops", "because"]])
    (tmp_path / "train.txt").write_text("1_a\n2_b\n")
    (tmp_path / "test.txt").write_bytes(b"1_a\n\xff\xfe\n")
    read = read_annotations(path)
    assert [row.split for row in read.rows] == ["train"]
    assert read.dropped.counts == {"split id that another split has": 1, "split id that matches no row": 2}
    assert "2_b" in read.dropped.examples["split id that matches no row"]


def test_absurd_cells_cost_their_slot(tmp_path):
    rows = [
        ["a.mp4", "9" * 5000, "9" * 5000, "The car stops", "because", "1", "2", "The car goes", "since it can"],
        ["b.mp4", "0", "4", "The car " + "really " * 1000 + "stops", "because"],
        ["c.mp4", "-1", "4", "The car stops", "because"],
        ["d.mp4", "0", "4", "The car stops", "because", "3", "6", "The car goes", "since it can"],
    ]
    read = read_annotations(write_table(tmp_path, rows))
    assert read.dropped.counts == {"time is not a number": 2, "text is endless": 1}
    assert [len(row.segments) for row in read.rows] == [1, 0, 0, 2]
    assert read.kept.counts == {"annotation overlaps the next": 1}


def test_a_quote_that_never_closes_costs_what_it_swallows(tmp_path):
    good = ["good.mp4", "0", "4", "The car stops", "because"]
    path = write_table(tmp_path, [good])
    swallowed = b'"open.mp4,0,4,The car stops\r\n' + b"x" * 200_000 + b"\r\n"
    path.write_bytes(path.read_bytes() + swallowed + b",".join(cell.encode() for cell in good) + b"\r\n")
    read = read_annotations(path)
    assert [row.name for row in read.rows] == ["good", "good"]
    assert read.dropped.counts == {"row that is not CSV": 1}
    assert (read.row_count, read.blank_rows) == (3, 0)


@given(st.binary(max_size=2000), st.binary(max_size=100))
def test_garbage_is_counted_or_refused_and_raises_nothing_else(garbage, split):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_table(folder, [])
        path.write_bytes(path.read_bytes() + garbage)
        (folder / "val.txt").write_bytes(split)
        read = read_annotations(path)
        assert read.blank_rows + len(read.rows) + sum(
            read.dropped.counts[reason]
            for reason in ("row without a video or a first annotation", "row that is not CSV")
        ) == read.row_count  # fmt: skip
        path.write_bytes(garbage)
        with pytest.raises(LogError):
            read_annotations(path)


cells = st.text(max_size=12) | st.integers(-5, 120).map(str)


@given(st.lists(st.lists(cells, max_size=70), max_size=6))
def test_whatever_stands_in_the_cells_segments_make_sense(rows):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "annotations.csv"
        with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        for row in read_annotations(path).rows:
            starts = [segment.start_s for segment in row.segments]
            assert starts == sorted(starts)
            for segment in row.segments:
                assert 0 <= segment.start_s < segment.end_s <= 101
                assert segment.action
                assert segment.justification
