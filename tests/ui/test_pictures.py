"""Pictures of the bus on their way to a browser."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image
from roadside.ui.pictures import LONGEST_SIDE_PX, Pictures, thumbnail


def _jpeg(width: int = 1280, height: int = 720, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG")
    return file.getvalue()


def _claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header promises another size."""
    jpeg = bytearray(_jpeg(64, 64))
    start_of_frame = jpeg.index(b"\xff\xc0")
    jpeg[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def test_a_small_picture_is_made_here() -> None:
    with Image.open(io.BytesIO(thumbnail(_jpeg()))) as small:
        assert (small.format, small.size) == ("JPEG", (LONGEST_SIDE_PX, 270))


@pytest.mark.parametrize(
    "broken",
    [b"\xff\xd8\xff\xe0", b"<svg onload='alert(1)'/>", _jpeg()[:2000], _claiming(60000, 60000), b"GIF89a" + bytes(40)],
    ids=["no picture", "svg", "cut short", "claims too much", "gif"],
)
def test_what_cannot_be_shown_is_not(broken: bytes) -> None:
    assert thumbnail(broken) == b""


async def test_the_newest_readable_picture_is_shown_once_somebody_looks() -> None:
    pictures = Pictures()
    pictures.put("vehicle-1", _jpeg())
    kept = pictures.get("vehicle-1")
    assert kept is not None
    assert not kept.thumbnail
    await pictures.decode("vehicle-1")
    first, version = kept.thumbnail, kept.version
    assert first
    assert pictures.bytes_kept == len(first)
    pictures.put("vehicle-1", b"nothing")
    await pictures.decode("vehicle-1")
    assert (kept.thumbnail, kept.version, kept.is_broken) == (first, version, True)
    pictures.put("vehicle-1", _jpeg(colour=(0, 90, 0)))
    await pictures.decode("vehicle-1")
    assert not kept.is_broken
    assert kept.version > version
    assert kept.thumbnail != first
    pictures.forget("vehicle-1")
    assert pictures.bytes_kept == 0


def test_the_longest_unheard_lose_theirs() -> None:
    picture = _jpeg()
    pictures = Pictures(budget_bytes=3 * len(picture))
    for name in "abc":
        pictures.put(name, picture)
    pictures.put("a", picture)
    pictures.put("d", picture)
    assert [name for name in "abcd" if pictures.get(name)] == ["a", "c", "d"]
    assert pictures.bytes_kept == 3 * len(picture)
