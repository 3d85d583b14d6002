"""`roadside check`: everything that is wrong in a file at once, and what a good one would run. Starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from roadside.fleet_check import CheckReport, check_file

GOOD = """
[fleet]
name = "crossing-7"
broker = "mqtt://roadside:s3cret@10.0.0.5"
[defaults]
rate_hz = 2
[[vehicle]]
count = 2
[recorder]
metrics = 0
"""


def check(tmp_path: Path, text: str, broker: str | None = None) -> CheckReport:
    file = tmp_path / "file.toml"
    file.write_text(text)
    return check_file(file, broker)


def problems(tmp_path: Path, text: str) -> list[str]:
    return [str(problem) for problem in check(tmp_path, text).problems]


def test_a_cloud_that_asks_a_server_is_checked_without_asking_it(tmp_path, monkeypatch):
    monkeypatch.delenv("NOBODYS_KEY", raising=False)
    cloud = '[[cloud]]\nbackend = "openai"\nurl = "http://127.0.0.1:9/v1"\nmodel = "gpt-4o"\n'
    assert not problems(tmp_path, cloud)
    assert "NOBODYS_KEY" in problems(tmp_path, cloud + 'api_key_env = "NOBODYS_KEY"')[0]
    assert "there is no folder" in problems(tmp_path, cloud + 'examples_log = "nowhere"')[0]
    assert "hazrad" in problems(tmp_path, cloud + "quality = {hazrad = 0.5}")[0]
    assert "give its url" in problems(tmp_path, '[[cloud]]\nbackend = "openai"')[0]


def test_a_vehicles_own_model_is_looked_for(tmp_path):
    vehicle = '[[vehicle]]\nvehicle_model = "{}"\n[[edge]]\n'
    assert not problems(tmp_path, vehicle.format("bundled"))
    assert "no model at nowhere" in problems(tmp_path, vehicle.format("nowhere"))[0]
    assert not check(tmp_path, vehicle.format("owner/name")).problems
    assert "hub" in str(check(tmp_path, vehicle.format("owner/name")).notes[0])


def test_what_a_fleet_would_run(tmp_path):
    report = check(tmp_path, GOOD)
    assert report.ok
    assert (report.kind, report.fleet, report.broker) == ("fleet", "crossing-7", "mqtt://10.0.0.5:1883")
    assert [(each.role, each.name) for each in report.members] == [
        ("vehicle", "vehicle-1"),
        ("vehicle", "vehicle-2"),
        ("recorder", "recorder"),
    ]
    assert report.members[0].settings["rate_hz"] == 2


def test_the_password_is_never_shown(tmp_path):
    report = check(tmp_path, GOOD)
    assert "s3cret" not in repr(report)
    assert "s3cret" not in json.dumps(report.plain())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[vehicle]]\nrate_hz = 'fast'", "vehicle-1: rate_hz = 'fast': expected `float`, got `str`"),
        ("[[vehicle]]\nrate_hz = 0", "rate_hz = 0: expected `float` > 0"),
        ("[[vehicle]]\nrate_hx = 1", "unknown key 'rate_hx'; did you mean 'rate_hz'?"),
        ("[[vehicle]]\npolicy = 'gredy'", "no policy 'gredy'; there are active-inference"),
        ("[[vehicle]]\npolicy = 'static'", "needs --place"),
        ("[[vehicle]]\nplace = 'cloud'", "this fleet has no cloud: add [[cloud]]"),
        ("[[vehicle]]\nlog = 'no-such-log'", "there is no folder no-such-log"),
        ("[[vehicle]]\nvideo = 'no-such.mp4'", "no-such.mp4"),
        ("[[vehicle]]\nvideo = 'x.mp4'\nlog = 'y'", "vehicle-1: "),
        ("[[vehicle]]\nframe_interval_s = 0.01", "frame_interval_s is 0 for never"),
        ("[[vehicle]]\njournal = '/no-such/j.sqlite'", "there is no folder /no-such"),
        ("[[vehicle]]\nmetrics = 'here'", "write a port"),
        ("[[vehicle]]\nlog_level = 'loud'", "log_level = 'loud'"),
        ("[fleet]\nbroker = 'http://x'\n[[vehicle]]", "does not begin with mqtt://"),
        ("[fleet]\nbroker = 'mqtt://x:99999'\n[[vehicle]]", "no usable port"),
        ("[fleet]\nname = 'x'", "nobody takes part"),
        ("[defaults]\nrate_hx = 1\n[[vehicle]]", "[defaults]: nobody here knows the key 'rate_hx'; did you mean"),
        ("[[vehicle]]\n[recorder]\nkeep_frames = 'all'", "recorder: --keep-frames takes none"),
        ("[[vehicle]]\nname = 'recorder'", "2 members are called 'recorder'"),
        ("[[vehicle]]\npolicy_from = 'learner-9'", "this fleet has no learner of that name"),
        ("[[learner]]\nstart = 'none.npz'", "learner-1: no weights at none.npz"),
        ("[[learner]]\nfolder = 'x'\n[[learner]]\nfolder = 'x'", "folder x is learner-1's"),
        ("[[learner]]\npolicy = 'linucb'", "invalid enum value 'linucb'"),
    ],
)
def test_one_thing_that_is_wrong_is_one_problem(tmp_path, text, says):
    (problem,) = problems(tmp_path, text)
    assert says in problem


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    found = problems(tmp_path, "[[vehicle]]\nrate_hz = 0\nspeed = 'x'\nlog = 'none'\n[[vehicle]]\nplace = 'edge'")
    assert len(found) == 4


def test_two_vehicles_cannot_share_a_journal(tmp_path):
    (problem,) = problems(tmp_path, "[defaults]\njournal = 'j.sqlite'\n[[vehicle]]\ncount = 2")
    assert "journal j.sqlite is vehicle-1's" in problem


def test_a_port_that_two_members_have_is_worth_a_note(tmp_path):
    report = check(tmp_path, "[[vehicle]]\ncount = 2\nmetrics = 9100")
    assert report.ok, "on two machines it is right"
    assert "9100 is vehicle-1's too" in str(report.notes[0])


def test_the_edges_and_clouds_of_a_fleet(tmp_path):
    text = (
        "[[edge]]\ncloud = 'cloud-9'\nmodel = '/no/model'\n[[cloud]]\nmodel = 'owner/name'\n[[vehicle]]\nplace = '{}'"
    )
    report = check(tmp_path, text.format("edge+cloud"))
    assert [str(each) for each in report.problems] == [
        "edge-1: no model at /no/model: give a model's folder or a Hugging Face id like owner/name",
        "edge-1: cloud = 'cloud-9', but this fleet has no cloud of that name",
    ]
    assert "hub" in str(report.notes[0])


def test_a_camera_is_left_alone_and_its_password_not_shown(tmp_path):
    report = check(tmp_path, "[[vehicle]]\nvideo = 'rtsp://me:s3cret@10.0.0.9/stream'\n")
    assert report.ok
    assert "s3cret" not in json.dumps(report.plain())


def test_a_url_that_is_given_wins_over_the_files(tmp_path):
    assert check(tmp_path, GOOD, "mqtt://127.0.0.1:1").broker == "mqtt://127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("rate_hz = 1", "vehicle"), ("queue_limit = 1", "edge or cloud"), ("context_ttl_s = 1", "cloud")],
)
def test_the_file_of_one_process_tells_by_its_keys_whose_it_is(tmp_path, text, kind):
    report = check(tmp_path, text)
    assert (report.ok, report.kind) == (True, kind)


def test_a_key_that_nobody_knows_in_the_file_of_one_process(tmp_path):
    report = check(tmp_path, "rate_hz = 1\nheartbeat = 2\nspeed = -1")
    assert report.kind == "vehicle"
    assert len(report.problems) == 2


def roadside(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "roadside.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_exit_status_tells(tmp_path, best_broker):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(GOOD)
    bad.write_text("[[vehicle]]\nrate_hz = 0\n")
    tried = roadside("check", str(good), "--connect", "--json", "--broker", best_broker.url)
    assert tried.returncode == 0
    assert json.loads(tried.stdout)["connection"]["round_trip_ms"] > 0
    refused = roadside("check", str(bad))
    assert refused.returncode == 2
    assert "problem: vehicle-1: rate_hz" in refused.stdout
    unreachable = roadside("check", str(good), "--connect", "--broker", "mqtt://127.0.0.1:1")
    assert unreachable.returncode == 2
    assert "nothing listens" in unreachable.stdout
