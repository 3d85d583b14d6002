"""Frames: the reason is in the picture where its box says, and nothing shines through what hides it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from roadside.datasets.boxes import OBJECT_NAMES, ObjectBox
from roadside.datasets.camera import FRAME_HEIGHT, FRAME_WIDTH, View
from roadside.datasets.drives import make_drive
from roadside.datasets.kinematics import Motion
from roadside.datasets.phrases import CONDITIONS
from roadside.datasets.renderer import Frame, Renderer
from roadside.datasets.scene import Drive, Stretch, Vehicle
from roadside.datasets.situations import SITUATIONS

NEEDED_IN_SIGHT = {
    "red-light": "red-light",
    "green-light": "green-light",
    "stop-sign": "stop-sign",
    "lead-brakes": "brake-lights",
    "lead-moves": "lead",
    "following": "lead",
    "pedestrian": "pedestrian",
    "cyclist": "crossing-cyclist",
    "cyclist-ahead": "riding-cyclist",
    "jam": "brake-lights",
    "parked": "parked",
    "oncoming": "oncoming",
    "construction": "cone",
    "road-closed": "cone",
    "lane-ends": "lane-end",
}


def stretches_with(drive: Drive, justification: str) -> list[Stretch]:
    return [stretch for stretch in drive.stretches if stretch.justification == justification]


def middle_s(stretch: Stretch) -> float:
    return (stretch.start_s + stretch.end_s) / 2


def named(frame: Frame, name: str) -> list[ObjectBox]:
    return [box for box in frame.boxes if name in box.names]


def pixels(frame: Frame, box: ObjectBox) -> np.ndarray:
    image = np.asarray(frame.image).astype(int)
    return image[int(box.top) : int(box.bottom) + 1, int(box.left) : int(box.right) + 1].reshape(-1, 3)


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_reason_is_in_sight(name):
    looked = missed = 0
    for seed in range(8):
        drive = make_drive(seed, must_show=name)
        renderer = Renderer(drive)
        for stretch in drive.stretches:
            needed = NEEDED_IN_SIGHT.get(stretch.justification)
            if needed:
                looked += 1
                missed += not named(renderer.frame(middle_s(stretch)), needed)
    assert looked > 0 or name in ("curve", "clear-road")
    assert missed <= max(1, 0.03 * looked)


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize(("lamp", "strongest"), [("red-light", 0), ("green-light", 1)])
def test_a_lit_lamp_has_its_colour_at_every_conditions(conditions, lamp, strongest):
    drive = make_drive(3, must_show="red-light", conditions=conditions)
    stretch = stretches_with(drive, lamp)[-1]
    frame = Renderer(drive).frame(stretch.start_s + 0.5)
    boxes = named(frame, lamp)
    assert boxes
    for box in boxes:
        inside = pixels(frame, box)
        others = np.delete(inside, strongest, axis=1).max(axis=1)
        assert (inside[:, strongest] - others).max() > 80


def test_frames_depend_on_their_moment_alone():
    drive = make_drive(11)
    renderer = Renderer(drive)
    first = renderer.frame(5.0)
    renderer.frame(9.0)
    again = renderer.frame(5.0)
    assert first.image.size == (FRAME_WIDTH, FRAME_HEIGHT)
    assert first.image.mode == "RGB"
    assert first.image.tobytes() == again.image.tobytes() == Renderer(make_drive(11)).frame(5.0).image.tobytes()
    assert first.boxes == again.boxes


def test_boxes_lie_in_the_frame_and_have_known_names():
    count = 0
    for seed in range(10):
        renderer = Renderer(make_drive(seed))
        for at_s in range(0, 24, 3):
            for box in renderer.frame(at_s).boxes:
                count += 1
                assert set(box.names) <= set(OBJECT_NAMES)
                assert 0 <= box.left <= box.right <= FRAME_WIDTH
                assert 0 <= box.top <= box.bottom <= FRAME_HEIGHT
    assert count > 100


def test_nothing_shines_through_the_vehicle_in_front():
    """A truck stands between the camera and a braking car at night: no lamp of the car may show."""
    drive = make_drive(4, must_show="clear-road", conditions="night")
    empty = dataclasses.replace(drive, standing=[], people=[], vehicles=[])
    here_m = empty.motion.station_m(2.0)
    grey = (120, 120, 120)
    car = Vehicle("car", "traffic", grey, Motion(0.0, here_m + 30.0, 0.0), 0.0)
    truck = Vehicle("truck", "parked", grey, Motion(0.0, here_m + 12.0, 0.0), 0.0)
    alone = Renderer(dataclasses.replace(empty, vehicles=[car])).frame(2.0)
    assert len(named(alone, "brake-lights")) == 2
    hidden = Renderer(dataclasses.replace(empty, vehicles=[truck, car])).frame(2.0)
    assert not named(hidden, "brake-lights")
    assert not named(hidden, "car")
    box = named(alone, "brake-lights")[0]
    where = pixels(hidden, box)
    assert (where[:, 0] - where[:, 1]).max() < 40


def test_near_things_are_larger():
    drive = dataclasses.replace(make_drive(4, must_show="clear-road"), standing=[], people=[], vehicles=[])
    here_m = drive.motion.station_m(2.0)
    heights = []
    for gap_m in (10.0, 20.0, 40.0):
        car = Vehicle("car", "traffic", (200, 20, 20), Motion(0.0, here_m + gap_m, 0.0), 0.0)
        frame = Renderer(dataclasses.replace(drive, vehicles=[car])).frame(2.0)
        heights.append(named(frame, "lead")[0].height_px)
    assert heights[0] / heights[1] == pytest.approx(2.0, rel=0.15)
    assert heights[1] / heights[2] == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(("name", "box_name"), [("pedestrian", "pedestrian"), ("cyclist", "crossing-cyclist")])
def test_who_crosses_is_on_the_side_that_is_told(name, box_name):
    told = right = 0
    for seed in range(12):
        drive = make_drive(seed, must_show=name)
        renderer = Renderer(drive)
        for stretch in stretches_with(drive, name):
            for at_s in (stretch.start_s + 0.3, middle_s(stretch), stretch.end_s - 0.3):
                for box in named(renderer.frame(at_s), box_name):
                    told += 1
                    right += box.side == stretch.side
    assert told >= 60
    assert right >= 0.98 * told


def test_a_turn_brings_the_car_onto_the_crossing_road():
    for seed in range(8):
        drive = make_drive(seed, must_show="turn")
        stretch = next(stretch for stretch in drive.stretches if stretch.action.startswith("turns"))
        turned = drive.heading_rad(stretch.end_s + 0.5) - drive.heading_rad(stretch.start_s)
        assert turned == pytest.approx(np.pi / 2 if stretch.side == "right" else -np.pi / 2, abs=0.25)


def test_a_lane_change_ends_in_the_lane_beside():
    for name in ("slow-vehicle", "merge", "construction"):
        drive = make_drive(5, must_show=name)
        stretch = next(stretch for stretch in drive.stretches if stretch.action.startswith("changes"))
        moved_m = drive.lateral_at(stretch.end_s) - drive.lateral_at(stretch.start_s)
        toward = 1 if stretch.action == "changes-right" else -1
        assert moved_m == pytest.approx(toward * drive.road.lane_width_m)


def test_rain_falls_and_fog_hides_what_is_far():
    contrast = {"day": 0.0, "foggy": 0.0}
    for seed in range(6):
        drive = make_drive(seed, must_show="clear-road")
        for conditions in contrast:
            frame = Renderer(dataclasses.replace(drive, conditions=conditions)).frame(3.0)
            # Around the horizon everything is far.
            contrast[conditions] += np.asarray(frame.image)[80:92].std()
    assert contrast["foggy"] < 0.9 * contrast["day"]
    standing = dataclasses.replace(make_drive(2), conditions="raining", motion=Motion(0.0, 0.0, 0.0), vehicles=[])
    moments = [np.asarray(Renderer(standing).frame(at_s).image).astype(int) for at_s in (3.0, 3.02)]
    assert 0.5 < np.abs(moments[0] - moments[1]).mean() < 10.0


def test_a_bend_leads_to_its_side():
    for seed in range(10):
        drive = make_drive(seed, must_show="curve")
        stretch = stretches_with(drive, "curve")[0]
        at_s = stretch.start_s + 0.5
        view = View(drive.centre_line, drive.motion.station_m(at_s), 0.0, drive.heading_rad(at_s))
        x, z = view.locate(np.array([view.station_m + 30.0]), np.array([0.0]))
        assert z[0] > 0
        assert x[0] > 1.0 if stretch.side == "right" else x[0] < -1.0


def test_night_is_darker_than_dusk_and_dusk_than_day():
    brightness = {
        conditions: np.asarray(Renderer(make_drive(2, conditions=conditions)).frame(3.0).image).mean()
        for conditions in CONDITIONS
    }
    assert brightness["night"] < 0.75 * brightness["dusk"] < 0.75 * brightness["day"]
