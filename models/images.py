"""Opening images that came over the network: format and size are checked before a pixel is decoded."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from ..bus.errors import MessageRefused

MAX_PIXELS = 4_000_000
# A progressive JPEG refines the whole picture with every scan; encoders write about ten. Thousands fit into a file of
# some hundred kilobytes and would keep a decoder busy for minutes.
MAX_JPEG_SCANS = 64
_START_OF_SCAN = b"\xff\xda"


def open_image(data: bytes) -> Image.Image:
    """Decode a JPEG or PNG to an RGB image.

    Raises MessageRefused with reason "image-format" (anything else), "image-size" (more than `MAX_PIXELS`, found in
    the header, so a small file cannot make us allocate a huge picture; or more than `MAX_JPEG_SCANS` passes over it)
    or "image-damaged".
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise MessageRefused("image-size", str(error)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise MessageRefused("image-format", f"neither JPEG nor PNG ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise MessageRefused("image-size", f"{image.width}x{image.height}; send at most {MAX_PIXELS:,} pixels")
    # In a scan's own bytes the marker cannot stand: there every 0xff is followed by 0 or a restart's number.
    if image.format != "PNG" and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        raise MessageRefused("image-size", f"more than {MAX_JPEG_SCANS} scans; save it anew")
    try:
        return image.convert("RGB")
    # Pillow's decoders raise SyntaxError and ValueError for broken chunks, and zlib's own error is an OSError to it.
    except (OSError, SyntaxError, ValueError) as error:
        raise MessageRefused("image-damaged", str(error)) from None


def colour_card_jpeg() -> bytes:
    """A fixed picture of colour ramps, for checks that need some image and not a scene."""
    ramp = Image.linear_gradient("L").resize((320, 192))
    channels = (ramp, ramp.transpose(Image.Transpose.ROTATE_180), Image.radial_gradient("L").resize((320, 192)))
    file = io.BytesIO()
    Image.merge("RGB", channels).save(file, "JPEG")
    return file.getvalue()
