"""Versions grow whatever is lost."""

import pytest
from roadside.bus.errors import ConfigurationError
from roadside.learner_node.publications import PUBLISHED_FILE, Publications
from roadside.policy.training.set_networks import SetActor, export

FIRST = export(SetActor().net, 10.0, "test", {})
SECOND = export(SetActor().net, 5.0, "test", {})


def test_other_weights_are_a_new_version_and_the_same_ones_are_not(tmp_path):
    publications = Publications(tmp_path, "ddpg", None)
    told = [publications.message(each, trained_tasks=3, note="").version for each in (FIRST, FIRST, SECOND, FIRST)]
    assert told == [1, 1, 2, 3], "going back is news as well"
    again = Publications(tmp_path, "ddpg", None)
    assert (again.version, again.trained_tasks) == (3, 3)
    assert again.message(FIRST, trained_tasks=4, note="").version == 3


def test_a_new_folder_counts_on_from_what_the_broker_has(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = Publications(tmp_path / "old", "ddpg", None)
    retained = [old.message(each, trained_tasks=3, note="") for each in (FIRST, SECOND)][-1]
    assert Publications(tmp_path / "new", "ddpg", retained).message(SECOND, trained_tasks=0, note="").version == 2
    assert Publications(tmp_path / "new", "ddpg", retained).message(FIRST, trained_tasks=0, note="").version == 3


def test_a_damaged_file_is_told_with_what_to_do(tmp_path):
    (tmp_path / PUBLISHED_FILE).write_text("{")
    with pytest.raises(ConfigurationError, match="remove it"):
        Publications(tmp_path, "ddpg", None)
