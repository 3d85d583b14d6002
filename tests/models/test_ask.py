"""One question about one image file, with the bundled model."""

import pytest
from roadside.bus.errors import ConfigurationError
from roadside.datasets.phrases import parse
from roadside.datasets.samples import make_sample
from roadside.models.ask import ask_once

SEED = 4_300_000


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "frame.png"
    make_sample(SEED).image.save(path)
    return path


@pytest.fixture
def red_light(tmp_path):
    """A scene in which a car may stand as well as slow down."""
    path = tmp_path / "red-light.png"
    samples = (make_sample(seed) for seed in range(SEED, SEED + 1000))
    next(sample for sample in samples if sample.facts.justification == "red-light").image.save(path)
    return path


@pytest.mark.parametrize(("place", "speakers"), [("edge", {"exit1", "exit2"}), ("cloud", {"full"})])
def test_an_answer_names_an_action_and_a_reason(picture, place, speakers):
    signals = [f"{name}={value}" for name, value in make_sample(SEED).telemetry.items()]
    answer = ask_once(picture, None, place=place, model=None, telemetry=signals)
    said = parse(answer["text"])
    assert said.action is not None
    assert said.justification is not None
    assert answer["place"] == place
    assert set(answer["made_by"]) <= speakers
    assert sum(answer["made_by"].values()) == answer["tokens"]


def test_telemetry_changes_what_is_said_of_the_action(red_light):
    def action(speed_kmh: float, acceleration_mps2: float) -> str | None:
        signals = [f"Vehicle.Speed={speed_kmh}", f"Vehicle.Acceleration.Longitudinal={acceleration_mps2}"]
        answer = ask_once(
            red_light, None, place="cloud", model=None, telemetry=[*signals, "Vehicle.AngularVelocity.Yaw=0"]
        )
        return parse(answer["text"]).action

    assert action(0.0, 0.0) == "stopped"
    assert action(40.0, -3.0) == "slows"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"place": "vehicle"}, "edge or cloud"),
        ({"telemetry": ["Vehicle.Speed"]}, "no '='"),
        ({"telemetry": ["Vehicle.Speed=fast"]}, "NAME=NUMBER"),
    ],
)
def test_what_cannot_be_used_is_named(picture, options, says):
    with pytest.raises(ConfigurationError, match=says):
        ask_once(picture, None, **{"place": "cloud", "model": None, "telemetry": [], **options})
