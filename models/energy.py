"""What computing costs: measured by the machine's own counters where it lets us, else power times time.

Processors count through RAPL (/sys/class/powercap, readable for root alone on most systems since 2020), NVIDIA's cards
through NVML (`pip install nvidia-ml-py`). Both count whole packages and cards: what other processes do meanwhile is in
the figure, so nodes that share a machine count the same joules twice. A figure always travels with its method.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from ..bus.messages import EnergyMethod

log = structlog.get_logger()

POWERCAP = Path("/sys/class/powercap")


class Mark(NamedTuple):
    """A moment: seconds of the performance counter, and the stands of a meter's counters."""

    at_s: float
    stands_j: tuple[float, ...] = ()


class EnergyMeter(Protocol):
    """`before = meter.now()`, work, `meter.joules_between(before, meter.now())`; on any thread."""

    @property
    def method(self) -> EnergyMethod: ...

    def now(self) -> Mark: ...

    def joules_between(self, before: Mark, after: Mark) -> float: ...


@dataclass(frozen=True, slots=True)
class ModelledEnergy:
    """Power while it computes, times the time that it takes."""

    power_w: float
    method: EnergyMethod = "modelled"

    def now(self) -> Mark:
        return Mark(time.perf_counter())

    def joules_between(self, before: Mark, after: Mark) -> float:
        return self.power_w * (after.at_s - before.at_s)


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """One counter of a package or card. read_j: its stand; range_j: where it begins again at 0, None: nowhere."""

    name: str
    read_j: Callable[[], float]
    range_j: float | None = None

    def spent_j(self, before_j: float, after_j: float) -> float:
        """A counter that went backwards has passed its end once; it takes minutes at the least to do so twice."""
        if after_j < before_j and self.range_j is not None:
            return after_j + self.range_j - before_j
        return max(0.0, after_j - before_j)


@dataclass(frozen=True, slots=True)
class MeasuredEnergy:
    """The sum of all counters."""

    counters: tuple[EnergyCounter, ...]
    method: EnergyMethod = "measured"

    def now(self) -> Mark:
        return Mark(time.perf_counter(), tuple(counter.read_j() for counter in self.counters))

    def joules_between(self, before: Mark, after: Mark) -> float:
        stands_j = zip(self.counters, before.stands_j, after.stands_j, strict=True)
        return sum(counter.spent_j(before_j, after_j) for counter, before_j, after_j in stands_j)


def open_energy_meter(power_w: float, *, powercap: Path = POWERCAP) -> EnergyMeter:
    """A meter that measures where this machine lets us, else one that models `power_w`."""
    counters = (*rapl_counters(powercap), *nvml_counters())
    if not counters:
        return ModelledEnergy(power_w)
    log.info("energy is measured", counters=[counter.name for counter in counters])
    return MeasuredEnergy(counters)


def rapl_counters(powercap: Path = POWERCAP) -> list[EnergyCounter]:
    """One for each processor package whose counter may be read.

    A package's parts (cores, memory) are in its own figure, and the platform's zone has the packages in its.
    """
    counters: list[EnergyCounter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith("package"):
                continue
            range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = EnergyCounter(name, _reader_of(zone / "energy_uj"), range_j)
            counter.read_j()
        except (OSError, ValueError):
            continue  # not for us to read: then energy is modelled
        counters.append(counter)
    return counters


def nvml_counters() -> list[EnergyCounter]:
    """One for each NVIDIA card that counts (since Volta); none without nvidia-ml-py or without a driver."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    counters: list[EnergyCounter] = []
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            counter = EnergyCounter(f"gpu-{index}", _card_reader(pynvml.nvmlDeviceGetTotalEnergyConsumption, card))
            counter.read_j()
            counters.append(counter)
    except pynvml.NVMLError as error:
        log.info("no card's energy can be measured", error=str(error))
    return counters


def _reader_of(file: Path) -> Callable[[], float]:
    return lambda: int(file.read_text()) / 1e6


def _card_reader(read_mj: Callable[[object], int], card: object) -> Callable[[], float]:
    return lambda: read_mj(card) / 1e3
