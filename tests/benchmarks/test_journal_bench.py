from __future__ import annotations

from pathlib import Path

from roadside.benchmarks.journal import WAYS, measure_journal


def test_every_way_is_timed_on_the_folder_that_is_named_and_leaves_nothing_there(tmp_path: Path):
    result = measure_journal(tasks=20, folder=tmp_path)
    rows = {row["name"]: row for row in result["rows"]}
    assert tuple(rows) == WAYS
    assert 0 <= rows["none"]["ms_per_task_p50"] < rows["wal"]["ms_per_task_p50"]
    assert all(row["ms_per_task_p50"] <= row["ms_per_task_p99"] for row in rows.values())
    assert result["ratios"]["wal_fsync_over_wal"] > 0
    assert list(tmp_path.iterdir()) == []
