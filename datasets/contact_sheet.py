"""A picture of a whole log: one row a clip, frames with their moment, telemetry and ground truth."""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from .drivelog import Clip, DriveLog
from .phrases import telemetry_text

COLUMNS = 6
_CELL = (320, 192)
_CAPTION_PX = 40
_TITLE_PX = 16


def contact_sheet(log: DriveLog, png_path: Path | str, *, clips: int = 12) -> None:
    """Write the first clips of a log as a PNG, COLUMNS moments of each. Raises LogError like the log itself."""
    shown = log.clips[:clips]
    row_px = _TITLE_PX + _CELL[1] + _CAPTION_PX
    sheet = Image.new("RGB", (COLUMNS * _CELL[0], len(shown) * row_px), (18, 18, 20))
    for row, clip in enumerate(shown):
        _draw_row(sheet, clip, row * row_px)
        clip.close()
    sheet.save(png_path, "PNG")


def _draw_row(sheet: Image.Image, clip: Clip, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((4, top + 2), f"{clip.name}  {clip.duration_s:.0f} s", fill=(255, 220, 120))
    for column, at_s in enumerate(_moments(clip)):
        left, below = column * _CELL[0], top + _TITLE_PX + _CELL[1]
        sheet.paste(clip.frame(at_s).resize(_CELL), (left, top + _TITLE_PX))
        segment = clip.truth(at_s)
        said = f"{segment.action.rstrip('.')} {segment.justification}" if segment else "not annotated"
        lines = [f"{at_s:.1f} s  {telemetry_text(clip.telemetry(at_s))}", *textwrap.wrap(said, 52)[:2]]
        draw.multiline_text((left + 4, below + 1), "\n".join(lines), fill=(235, 235, 235), spacing=1)


def _moments(clip: Clip) -> list[float]:
    """The middles of segments spread over the clip, so that each picture tells another story; else even steps."""
    middles = [(segment.start_s + segment.end_s) / 2 for segment in clip.segments]
    middles = [at_s for at_s in middles if 0 <= at_s < clip.duration_s]
    if len(middles) < COLUMNS:
        return [(column + 0.5) * clip.duration_s / COLUMNS for column in range(COLUMNS)]
    return [middles[column * (len(middles) - 1) // (COLUMNS - 1)] for column in range(COLUMNS)]
