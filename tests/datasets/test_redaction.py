"""What is redacted is black in the file that goes out, and everything else is as it was."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from roadside.datasets.jpeg import encode_jpeg
from roadside.datasets.redaction import Redaction, Region
from roadside.datasets.signals import HEADING_DEG, LATITUDE_DEG, LONGITUDE_DEG, SPEED_KMH

shares = st.floats(0, 1)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    left, right = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    return Region(left, top, right, bottom)


@given(region=regions(), width=st.integers(1, 70), height=st.integers(1, 50))
def test_just_the_touched_pixels_are_black(region: Region, width: int, height: int) -> None:
    white = Image.new("RGB", (width, height), "white")
    black = np.asarray(Redaction((region,)).of_frame(white)).max(axis=2) == 0
    columns, rows = np.arange(width), np.arange(height)
    inside_columns = ((columns + 1) / width > region.left) & (columns / width < region.right)
    inside_rows = ((rows + 1) / height > region.top) & (rows / height < region.bottom)
    inside = np.outer(inside_rows, inside_columns)
    # Nothing of a region may be left over; a pixel more, where an edge falls on a boundary, does no harm.
    assert black[inside].all()
    assert black.any()
    grown_columns = ((columns + 2) / width > region.left) & ((columns - 1) / width < region.right)
    grown_rows = ((rows + 2) / height > region.top) & ((rows - 1) / height < region.bottom)
    assert not black[~np.outer(grown_rows, grown_columns)].any()
    assert np.asarray(white).min() == 255


def test_the_jpeg_holds_nothing_of_a_region() -> None:
    region = Region(0.1, 0.43, 0.9, 1.0)

    def file_of(*, inside: int) -> bytes:
        """The same surroundings, with noise from another seed in the region."""
        pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        pixels[42:, 13:115] = np.random.default_rng(inside).integers(0, 256, (54, 102, 3), dtype=np.uint8)
        frame = Image.fromarray(pixels)
        assert encode_jpeg(frame, 85) != encode_jpeg(Redaction((region,)).of_frame(frame), 85)
        return encode_jpeg(Redaction((region,)).of_frame(frame), 85)

    assert file_of(inside=1) == file_of(inside=2)


def test_location_is_left_out_and_motion_is_not() -> None:
    signals = {SPEED_KMH: 36.0, HEADING_DEG: 90.0, LATITUDE_DEG: 37.0, LONGITUDE_DEG: -122.0}
    assert Redaction(location=True).of_telemetry(signals) == {SPEED_KMH: 36.0}
    assert Redaction().of_telemetry(signals) == signals


@pytest.mark.parametrize("region", [[0, 0, 0, 1], [0.5, 0, 0.4, 1], [0, 0.9, 1, 0.9], [0, 0, 1, 1.1], [0, 0, 1]])
def test_a_region_that_is_none_is_refused(region: list[float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(region, Region)
