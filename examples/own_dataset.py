"""Make a driving log of drives that another format holds: `python examples/own_dataset.py MY_LOG`.

What a format of one's own gives is the middle of this file: pictures over time, speed and course, and who said what of
which seconds. The rest writes a folder that `--log`, `roadside evaluate` and `roadside fine-tune` take.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from roadside.datasets.bddx import Segment, write_annotations
from roadside.datasets.drivelog import DriveLog
from roadside.datasets.info_files import write_readings
from roadside.datasets.telemetry import Reading

FRAMES_PER_S = 10


@dataclass(frozen=True)
class Drive:
    """One drive, as a format of one's own tells it."""

    name: str
    duration_s: int
    speed_mps: float
    segments: tuple[Segment, ...]

    def pictures(self) -> Iterator[np.ndarray]:
        """RGB, [height, width, 3] uint8, FRAMES_PER_S of them a second: here a road that comes nearer."""
        rows = np.arange(240)[:, None]
        for number in range(self.duration_s * FRAMES_PER_S):
            lines = (rows + number * self.speed_mps) % 60 < 30
            yield np.broadcast_to(np.where(lines, 90, 120)[:, :, None], (240, 426, 3)).astype(np.uint8)

    def readings(self) -> list[Reading]:
        """What the receiver said, a reading a second; None for what it did not know."""
        return [Reading(float(second), self.speed_mps, course_deg=90.0) for second in range(self.duration_s + 1)]


FORWARD = Segment(0, 8, "The car drives forward", "because the road is clear")
SLOWS = Segment(0, 3, "The car slows down", "as a gate is ahead")
STOPS = Segment(3, 6, "The car stops", "since the gate is closed")
DRIVES = (Drive("meadow", 8, 12.0, (FORWARD,)), Drive("gate", 6, 4.0, (SLOWS, STOPS)))


def write_video(path: Path, pictures: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_S)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 426, 240, "yuv420p", 1_000_000
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main(folder: Path) -> None:
    for part in ("videos", "info"):
        (folder / part).mkdir(parents=True)
    for drive in DRIVES:
        write_video(folder / "videos" / f"{drive.name}.mp4", drive.pictures())
        write_readings(folder / "info" / f"{drive.name}.json", drive.name, 0, drive.duration_s, drive.readings())
    write_annotations(folder, [(f"{drive.name}.mp4", drive.segments) for drive in DRIVES], split="test")
    clips = DriveLog.open(folder).clips
    for clip in clips:
        speed_kmh = clip.telemetry(2.0)["Vehicle.Speed"]
        print(f"{clip.name}: {clip.duration_s:.0f} s, {speed_kmh:.0f} km/h, {clip.truth(2.0)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
