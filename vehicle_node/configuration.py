"""A vehicle's configuration: the keys of its TOML file and the flags of `roadside vehicle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..bus.configuration import MemberConfiguration
from ..bus.places import Place
from ..datasets.redaction import Region
from ..policy.registry import DEFAULT_POLICY, PolicyOptions

# Frames for people share camera and uplink with the tasks.
_SHORTEST_FRAME_INTERVAL_S = 0.1


class VehicleConfiguration(MemberConfiguration, frozen=True, kw_only=True):
    """log: folder of a driving log; None: the bundled rendered log.
    policy: how a place is chosen, by its registered name. place: all tasks to this one, by the policy "static".
    policy_weights: a file of `roadside train policy` for policies that have weights; None: those that ship.
    policy_from: whose published weights such a policy takes over while it drives, a learner's name; None: those of the
        first learner that is heard. explore_share: of the decisions that are drawn evenly for a learner's sake.
    video: instead of a log, a video file to be replayed, or a live camera: a URL (rtsp://...) or a video device.
    journal: SQLite file of the vehicle's own record of its tasks.
    seed: the same one makes the same tasks.
    speed: log seconds per second. rate_hz: mean tasks per second (Poisson arrivals, seeded).
    start_share: where the replay begins, 0 at the log's first clip to 1 after its last; start_s: how much later.
    duration_s: for how long tasks are created.
    frames_per_task: 2 sends the frame of about a second before as well, for what the newest one leaves open.
    jpeg_quality: of the pictures that are sent. longest_side_px: larger pictures are scaled down before they are sent.
    frame_interval_s: every so often a frame is published for people; 0: never.
    redact_regions: rectangles [left, top, right, bottom], as shares of the picture, that are blacked out in all that
        is sent. redact_location: latitude, longitude and heading are not sent. redact_people: not offered.
    stale_after_ms: a live camera that shows nothing new for so long is not asked about.
    theta: confidence at which every early exit of an edge may speak (CE-CoLLM's threshold; above 1 none ever does);
        None: each model's own, calibrated ones.
    vehicle_model: a small model of the vehicle's own: a folder, a Hugging Face id, or "bundled"; None: its narrator
        alone. vehicle_model_power_w: electric power while it computes, for the energy model.
    fallback_margin_ms: how long before a deadline the narrator speaks if no answer has come.
    silent_after_ms: a node that was not heard of for so long is taken for unreachable.
    """

    name: str = "vehicle-1"
    log: str | None = None
    video: str | None = None
    journal: str = "vehicle-1.sqlite"
    policy: str = DEFAULT_POLICY
    policy_weights: str | None = None
    policy_from: str | None = None
    explore_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    place: Place | None = None
    seed: int = 0
    speed: Annotated[float, Meta(gt=0, le=100)] = 1.0
    rate_hz: Annotated[float, Meta(gt=0, le=100)] = 1.0
    start_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    start_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    duration_s: Annotated[float, Meta(gt=0)] = 30.0
    jpeg_quality: Annotated[int, Meta(ge=10, le=100)] = 85
    frames_per_task: Annotated[int, Meta(ge=1, le=2)] = 1
    longest_side_px: Annotated[int, Meta(ge=32, le=2000)] = 640
    frame_interval_s: Annotated[float, Meta(ge=0)] = 0.0
    redact_regions: Annotated[tuple[Region, ...], Meta(max_length=16)] = ()
    redact_location: bool = False
    redact_people: bool = False
    stale_after_ms: Annotated[float, Meta(gt=0)] = 2000.0
    theta: Annotated[float, Meta(ge=0, le=10)] | None = None
    vehicle_model: str | None = None
    vehicle_model_power_w: Annotated[float, Meta(ge=0)] = 15.0
    fallback_margin_ms: Annotated[float, Meta(ge=0)] = 25.0
    silent_after_ms: Annotated[float, Meta(gt=0)] = 5000.0

    @property
    def policy_options(self) -> PolicyOptions:
        weights = None if self.policy_weights is None else Path(self.policy_weights)
        return PolicyOptions(place=self.place, seed=self.seed, weights=weights)

    def __post_init__(self) -> None:
        if 0 < self.frame_interval_s < _SHORTEST_FRAME_INTERVAL_S:
            raise ValueError(f"frame_interval_s is 0 for never, or at least {_SHORTEST_FRAME_INTERVAL_S}")
        if self.redact_people:
            # Whoever asks for it must not believe that they have it.
            raise ValueError(
                "redact_people is not offered: it needs a detector, and whom that misses would be sent all the same;"
                " black out regions, or keep no frames"
            )
