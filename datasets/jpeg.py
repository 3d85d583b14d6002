"""Frames as vehicles send them."""

from __future__ import annotations

import io

from PIL import Image


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
