"""The constants of the simulated fleet: their names, types and units, and the file that holds them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ...bus.errors import ConfigurationError
from ...bus.places import Place
from ..utility import UtilityModel

Scenario = Literal["headline", "collaborative"]

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Bounds = tuple[NotNegative, NotNegative]

COMMITTED = Path(__file__).with_name("constants.toml")


class _Table(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the file's tables. What has its default is left out, so that a new optional key changes no hash."""


class Arrivals(_Table, frozen=True):
    """rate(t) = mean (1 + swing sin(2 pi t / period_s)); the mean is the run's own."""

    vehicles: Annotated[int, Meta(ge=1, le=10_000)]
    swing: Share
    period_s: Positive


class Quality(_Table, frozen=True):
    """together: of edge and cloud, at the edge's own threshold, where it was measured; None: by the curve."""

    vehicle: Share
    edge: Share
    cloud: Share
    together: Share | None = None


class Kind(_Table, frozen=True):
    """share: of all tasks. The bounds are of even draws.

    service_ms, context_ms: where they were measured, by place, the mean time of a node's own computing, in place of
        tokens / tokens_per_second, and at "edge+cloud" that of waiting for the cloud.
    """

    name: str
    share: Share
    upload_bytes: Bounds
    tokens: Bounds
    deadline_s: Bounds
    quality: Quality
    service_ms: dict[Place, NotNegative] = {}
    context_ms: NotNegative = 0.0


class Node(_Table, frozen=True):
    """tokens_per_second: of each slot, as announced. spread: the first node is faster by so much, the last slower."""

    tokens_per_second: Positive
    slots: Annotated[int, Meta(ge=1, le=1024)]
    power_w: NotNegative
    spread: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    round_trip_ms: NotNegative = 0.0


class CloudNode(Node, frozen=True):
    """uplink_bps: shared by all vehicles; uplink_sigma: of the logarithm of what a task gets of it."""

    uplink_bps: Positive = 120e6
    uplink_sigma: NotNegative = 0.0


class Radio(_Table, frozen=True):
    """Path loss 32.4 + 21 log10(d_m) + 20 log10(f_GHz) dB (3GPP TR 38.901, UMi street canyon, line of sight).

    Capacity B log2(1 + SNR) (Shannon). shadowing_db: standard deviation of what a task meets on top of the path loss.
    """

    bandwidth_hz: Positive
    transmit_dbm: float
    noise_dbm: float
    frequency_ghz: Positive
    shadowing_db: NotNegative
    reach_m: Positive


class Road(_Table, frozen=True):
    edge_spacing_m: Positive
    edge_offset_m: Positive
    speed_mps: Bounds


class Hidden(_Table, frozen=True):
    """What shapes the outcomes and is not announced. report_sigma: of the logarithm of a reported queue's error."""

    drift: Annotated[float, Meta(ge=0, lt=1)]
    service_sigma: NotNegative
    report_sigma: NotNegative


class Weights(_Table, frozen=True):
    """The utility's, under the names of UtilityModel."""

    quality_weight: float
    latency_weight: float
    energy_weight: float
    latency_cap: Positive
    reference_energy_j: Positive
    transmit_power_w: NotNegative


class Collaborative(_Table, frozen=True):
    """What an edge and the cloud make together, and what a decision's knobs do.

    thresholds, request_rate, right: points of a measured curve, ascending in threshold.
    token_round_trip_ms, token_ms: what each token that the cloud is asked for takes on the way and there.
    """

    token_round_trip_ms: NotNegative
    token_ms: NotNegative
    exit_threshold: NotNegative
    thresholds: tuple[NotNegative, ...]
    request_rate: tuple[Share, ...]
    right: tuple[Share, ...]
    smallest_frame_scale: Annotated[float, Meta(gt=0, le=1)]
    frame_loss: Share

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.request_rate) == len(self.right) >= 2:
            raise ValueError("thresholds, request_rate and right are points of one curve: give as many of each")
        if list(self.thresholds) != sorted(self.thresholds) or self.right[-1] <= self.right[0]:
            raise ValueError("the curve's thresholds must ascend, and its last point be better than its first")


class EnvironmentConstants(_Table, frozen=True, dict=True):
    """collaborative: None in the headline scenario, where the knobs do nothing."""

    arrivals: Arrivals
    kinds: tuple[Kind, ...]
    vehicle: Node
    edge: Node
    cloud: CloudNode
    radio: Radio
    road: Road
    hidden: Hidden
    utility: Weights
    collaborative: Collaborative | None = None

    def __post_init__(self) -> None:
        if abs(sum(kind.share for kind in self.kinds) - 1) > 1e-6:
            raise ValueError("the shares of the kinds must add up to 1")

    @cached_property
    def utility_model(self) -> UtilityModel:
        return UtilityModel(**msgspec.structs.asdict(self.utility))

    @cached_property
    def sha256(self) -> str:
        """Of the values, whatever the file says beside them; the first 16 digits."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


def load_constants(path: Path = COMMITTED, *, scenario: Scenario | None = "headline") -> EnvironmentConstants:
    """Read constants from a TOML file; ConfigurationError says which key is wrong.

    The scenario "headline" leaves out the table [collaborative]; "collaborative" needs it; None: as the file has it.
    """
    try:
        constants = msgspec.toml.decode(path.read_bytes(), type=EnvironmentConstants)
    except OSError as error:
        raise ConfigurationError(f"cannot read the environment's constants {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}; {COMMITTED.name} in policy/environment has every key") from None
    if scenario == "headline":
        return msgspec.structs.replace(constants, collaborative=None)
    if scenario is not None and constants.collaborative is None:
        raise ConfigurationError(f"{path} has no table [collaborative]; copy it from {COMMITTED}")
    return constants
