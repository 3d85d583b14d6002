"""The driving log that a run replayed, for what the run itself does not hold: the telemetry of each moment.

An outcome names its clip and moment, and no more; a moment's signals are read again where the log lies. A log that was
moved or changed since is not taken: its words for a moment must be those that the outcome holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..bus.errors import LogError
from ..bus.messages import Outcome
from .circumstances import vehicle_settings
from .run import Manifest


class LogOfRun:
    """problem: why there is no telemetry to be had; empty where there is."""

    def __init__(self, manifest: Manifest) -> None:
        # Imported here: it decodes video, and most readers of a run ask for no telemetry.
        from ..datasets.drivelog import Clip, DriveLog, bundled_log_path

        self.problem = ""
        self._clips: dict[str, Clip] = {}
        logs = vehicle_settings(manifest, "log")
        if any(vehicle_settings(manifest, "video")):
            self.problem = "the vehicles saw a video or a camera, beside which there is no telemetry"
            return
        if len(logs) != 1:
            self.problem = (
                "its vehicles replayed several logs" if logs else "the run does not say which log its vehicles replayed"
            )
            return
        folder = Path(logs[0] or bundled_log_path())
        try:
            self._clips = {clip.name: clip for clip in DriveLog.open(folder).clips}
        except LogError as error:
            self.problem = f"the driving log cannot be read any more ({error})"

    def telemetry(self, outcome: Outcome) -> Mapping[str, float] | None:
        """VSS names to values at the task's moment; None where it is not known, or the log is no longer the same."""
        clip = self._clips.get(outcome.clip)
        if clip is None:
            return None
        segment = clip.truth(outcome.moment_s)
        words = None if segment is None else (segment.action, segment.justification)
        recorded = None if outcome.truth is None else (outcome.truth.action, outcome.truth.justification)
        if words != recorded:
            return None
        try:
            return clip.telemetry(outcome.moment_s)
        except LogError:
            return None
