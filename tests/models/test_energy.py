"""Energy meters on a folder of the files that the kernel shows."""

import os
import sys
import time
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.models.energy import (
    EnergyCounter,
    MeasuredEnergy,
    ModelledEnergy,
    nvml_counters,
    open_energy_meter,
    rapl_counters,
)

RANGE_UJ = 262_143_328_850


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with a part each, and the platform's zone, as /sys/class/powercap has them."""
    zones = {
        "intel-rapl": None,
        "intel-rapl:0": ("package-0", 1_000_000),
        "intel-rapl:0:0": ("core", 400_000),
        "intel-rapl:1": ("package-1", RANGE_UJ - 2_000_000),
        "intel-rapl:2": ("psys", 9_000_000),
    }
    for zone, content in zones.items():
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "enabled").write_text("1\n")
        if content is not None:
            name, energy_uj = content
            (folder / "name").write_text(f"{name}\n")
            (folder / "energy_uj").write_text(f"{energy_uj}\n")
            (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return tmp_path


@pytest.fixture
def without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_packages_are_added_up_across_the_end_of_a_counter(powercap, without_cards):
    meter = open_energy_meter(50.0, powercap=powercap)
    assert meter.method == "measured"
    mark = meter.now()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("1500000\n")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("3000000\n")
    assert meter.joules_between(mark, meter.now()) == pytest.approx(0.5 + 5.0), "the second passed its end on the way"


def test_parts_and_the_platform_are_not_counted_again(powercap):
    assert [counter.name for counter in rapl_counters(powercap)] == ["package-0", "package-1"]


@pytest.mark.parametrize("what", ["absent", "empty", "forbidden"])
def test_where_nothing_can_be_read_energy_is_modelled_and_says_so(what, powercap, without_cards):
    for package in ("intel-rapl:0", "intel-rapl:1"):
        file = powercap / package / "energy_uj"
        if what == "absent":
            file.unlink()
        elif what == "empty":
            file.write_text("")
        else:
            file.chmod(0)
            if os.geteuid() == 0:
                # Root may read everything; a folder in the file's place may be read by nobody.
                file.unlink()
                file.mkdir()
    meter = open_energy_meter(50.0, powercap=powercap)
    assert meter == ModelledEnergy(50.0)
    assert meter.method == "modelled"


def test_a_machine_without_counters_is_modelled(tmp_path, without_cards):
    meter = open_energy_meter(50.0, powercap=tmp_path / "none")
    mark = meter.now()
    time.sleep(0.02)
    spent_j, waited_s = meter.joules_between(mark, meter.now()), time.perf_counter() - mark[0]
    assert 0.02 * 50 <= spent_j <= waited_s * 50


@given(st.lists(st.integers(0, RANGE_UJ - 1), min_size=1, max_size=20), st.integers(0, RANGE_UJ - 1))
def test_a_counter_that_begins_again_loses_nothing(steps_uj, start_uj):
    stand_uj = start_uj
    counter = EnergyCounter("package-0", lambda: stand_uj / 1e6, RANGE_UJ / 1e6)
    meter, total_j = MeasuredEnergy((counter,)), 0.0
    for step_uj in steps_uj:
        mark = meter.now()
        stand_uj = (stand_uj + step_uj) % RANGE_UJ
        total_j += meter.joules_between(mark, meter.now())
    assert total_j == pytest.approx(sum(steps_uj) / 1e6, abs=1e-3)


def test_cards_count_in_millijoules(monkeypatch):
    """NVML itself needs a card: a module with the same functions stands for it."""
    stand_mj = [1000, 5000]
    module = types.ModuleType("pynvml")
    module.__dict__.update(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda card: stand_mj[card],
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    meter = MeasuredEnergy(tuple(nvml_counters()))
    mark = meter.now()
    stand_mj[:] = [1250, 7000]
    assert meter.joules_between(mark, meter.now()) == pytest.approx(2.25)


def test_a_driver_that_is_not_there_is_no_reason_to_stop(monkeypatch):
    def missing() -> None:
        raise RuntimeError("NVML Shared Library Not Found")

    module = types.ModuleType("pynvml")
    module.__dict__.update(NVMLError=RuntimeError, nvmlInit=missing)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert nvml_counters() == []
