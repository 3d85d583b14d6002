"""Pictures as chat messages carry them."""

from __future__ import annotations

import base64

_PNG = b"\x89PNG"


def data_url(picture: bytes) -> str:
    """A JPEG or PNG file as the URL that holds it."""
    form = "png" if picture.startswith(_PNG) else "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"
