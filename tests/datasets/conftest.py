"""Videos whose every picture tells its own number, in the shapes that people's recorders leave them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

_BITS = 8


class Film:
    """Writes videos and reads the numbers in their pictures."""

    @staticmethod
    def picture(number: int, size: tuple[int, int] = (320, 192)) -> Image.Image:
        """The number as bright and dark bars, the largest bit at the left; the top quarter is bright throughout."""
        bits = [255 * (number >> bit & 1) for bit in reversed(range(_BITS))]
        bars = np.repeat(np.array(bits, np.uint8), size[0] // _BITS)
        image = np.zeros((size[1], size[0]), np.uint8)
        image[:, : len(bars)] = bars
        image[: size[1] // 4] = 255
        return Image.fromarray(image).convert("RGB")

    @staticmethod
    def number(image: Image.Image) -> int:
        bars = np.asarray(image.convert("L").resize((_BITS, 8), Image.Resampling.BOX))[5]
        return int("".join("1" if bar > 127 else "0" for bar in bars), 2)

    def write(
        self,
        path: Path | str,
        count: int = 60,
        *,
        rate: int = 10,
        key_every: int = 12,
        size: tuple[int, int] = (320, 192),
        at: Sequence[int] | None = None,
        turned_deg: int | None = None,
        codec: str = "mpeg4",
        **how: Any,
    ) -> None:
        """at: when each picture comes, in 1/rate s; turned_deg: turn of the picture, counterclockwise."""
        with av.open(str(path), "w", **how) as container:
            stream: Any = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.gop_size = key_every
            stream.bit_rate = 500_000
            if turned_deg is not None:
                stream.set_display_rotation(turned_deg)
            for number in range(count):
                frame = av.VideoFrame.from_image(self.picture(number, size))
                frame.pts = number if at is None else at[number]
                frame.time_base = Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def film() -> Film:
    return Film()
