from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus import topics
from roadside.bus.errors import ConfigurationError
from roadside.bus.topics import TOPICS, Topic, checked_name, topic_of

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def matches(address_filter: str, address: str) -> bool:
    """MQTT's own rule for filters without `#`: level by level, `+` stands for any one level."""
    wanted, given_levels = address_filter.split("/"), address.split("/")
    return len(wanted) == len(given_levels) and all(
        level in ("+", there) for level, there in zip(wanted, given_levels, strict=True)
    )


@every_topic
@given(data=st.data())
def test_an_address_reads_back_as_its_topic_and_names(topic: Topic, data: st.DataObject):
    fleet = data.draw(names)
    chosen = {placeholder: data.draw(names) for placeholder in topic.placeholders}
    address = topic.address(fleet, **chosen)
    assert topic_of(address) == (topic, {"fleet": fleet, **chosen})
    for some in data.draw(st.lists(st.sets(st.sampled_from(topic.placeholders)), max_size=3)):
        assert matches(topic.filter(fleet, **{key: chosen[key] for key in some}), address)


@every_topic
def test_the_table_s_rules(topic: Topic):
    assert topic.sender in topic.placeholders
    assert topic.address("f", **dict.fromkeys(topic.placeholders, "x")).count("/") <= 6
    assert re.fullmatch(r"[a-z-]+", topic.name)
    # A task or a result must never vanish silently; only a state or a picture has a newer one behind it.
    assert (topic.overflow == "drop-oldest") == (topic.retained or topic.name == "frame")
    # What is not delivered at least once is what its receiver can ask for again, or do without.
    assert topic.qos == (0 if topic.name in ("frame", "context", "infer", "token") else 1)
    assert topic.about.endswith(".")


def test_names_and_address_forms_are_unique():
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    assert len({re.sub(r"\{\w+\}", "+", topic.pattern) for topic in TOPICS}) == len(TOPICS)


hostile = pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "#",
        "a/b",
        "a+",
        "a#",
        "/",
        "a\x00",
        "\x00",
        "../x",
        ".hidden",
        "-x",
        "a b",
        "a\n",
        "ä",
        "$SYS",
        "a" * 65,
    ],
)


@hostile
def test_a_name_that_could_widen_an_address_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="cannot be a name"):
        checked_name(name)
    for call in (topics.TASK.address, topics.TASK.filter):
        with pytest.raises(ConfigurationError):
            call("demo", vehicle="car-1", node=name)
        with pytest.raises(ConfigurationError):
            call(name, vehicle="car-1", node="edge-1")


@given(st.text(max_size=80))
def test_a_name_is_accepted_only_where_it_is_one_plain_level(name: str):
    try:
        checked_name(name)
    except ConfigurationError:
        return
    assert not set(name) & set("+#/\x00\n ")
    assert 1 <= len(name) <= 64


@pytest.mark.parametrize(
    "address",
    [
        "",
        "roadside/v1/demo",
        "roadside/v2/demo/node/edge-1/state",
        "roadside/v1/demo/node/edge-1/state/",
        "roadside/v1/demo/node/edge-1/state\n",
        "roadside/v1/demo/node//state",
        "roadside/v1/demo/node/a/b/state",
        "x/roadside/v1/demo/node/edge-1/state",
        "$SYS/broker/uptime",
    ],
)
def test_a_foreign_address_is_none_of_ours(address: str):
    assert topic_of(address) is None


def test_missing_and_unknown_names_are_a_programming_error():
    with pytest.raises(TypeError, match="needs vehicle"):
        topics.TASK.address("demo", node="edge-1")
    with pytest.raises(TypeError, match="has no edge"):
        topics.TASK.filter("demo", edge="edge-1")
