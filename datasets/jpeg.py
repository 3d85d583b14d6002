"""Frames as vehicles send them."""

from __future__ import annotations

import io

from PIL import Image

_BLOCK_PX = 8


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """An image file; quality as Pillow counts it, 1 to 95."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def fit_within(image: Image.Image, longest_side_px: int) -> Image.Image:
    """The image with its longer side no longer than this, its shape kept; never enlarged."""
    if max(image.size) <= longest_side_px:
        return image
    smaller = image.copy()
    smaller.thumbnail((longest_side_px, longest_side_px), Image.Resampling.BILINEAR)
    return smaller


def shrink_jpeg(jpeg: bytes, scale: float, quality: int) -> bytes:
    """The same picture with its sides scaled by a factor below 1, encoded again; never below one block of JPEG."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
        width, height = (max(_BLOCK_PX, round(side * scale)) for side in picture.size)
        smaller = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return encode_jpeg(smaller, quality)
