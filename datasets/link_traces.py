"""Links as a user writes them, and the recorded traces that may stand in them.

Two public formats are read, told apart by their content:

- mahimahi (ravinet/mahimahi; K. Winstein, A. Sivaraman, H. Balakrishnan, NSDI 2013): each line is the millisecond at
  which one packet of 1,500 bytes may leave. It sets the uplink's rate.
- cicv5g (zxr805/CICV5G, DOI 10.5281/zenodo.17475688): a table of what a moving car measured on 5G, with the columns
  `pub_time(ms)` and `delay(ms)` among others. Its delays are round trips; it sets the link's delay.
"""

from __future__ import annotations

import math
import re
from array import array
from pathlib import Path

from ..bus.errors import ConfigurationError
from ..bus.link import CapacityTrace, DelayTrace, LinkShape

HOW_TO_WRITE = (
    "write a link as RATE,RTT (100Mbps,20ms), as RATE,RTT,JITTER (100Mbps,20ms,5ms), or with trace files in their "
    "place: a mahimahi file for the uplink's rate, a cicv5g file for the delay (trace.up,40ms or trace.up,5g.txt)"
)

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_BITS_PER_S = {"bps": 1.0, "kbps": 1e3, "mbps": 1e6, "gbps": 1e9}
_MILLISECONDS = {"ms": 1.0, "s": 1e3}

_SENT_AT = "pub_time(ms)"
_ROUND_TRIP = "delay(ms)"


def parse_link(text: str) -> LinkShape:
    """Read what stands behind `--link`; parts are separated by commas.

    A rate holds each way, unless a mahimahi trace sets the uplink's. What is not mentioned is not limited or delayed.
    Raises ConfigurationError, saying what is allowed, for anything else and for a file that is no trace.
    """
    rates_bps: list[float] = []
    times_ms: list[float] = []
    capacities: list[CapacityTrace] = []
    delays: list[DelayTrace] = []
    for part in (part.strip() for part in text.split(",")):
        match = _QUANTITY.fullmatch(part)
        unit = match[2].lower() if match else ""
        if match and unit in _BITS_PER_S:
            rates_bps.append(float(match[1]) * _BITS_PER_S[unit])
        elif match and unit in _MILLISECONDS:
            times_ms.append(float(match[1]) * _MILLISECONDS[unit])
        elif Path(part).is_file():
            trace = read_trace(Path(part))
            if isinstance(trace, CapacityTrace):
                capacities.append(trace)
            else:
                delays.append(trace)
        else:
            raise ConfigurationError(f"{part!r} is neither a rate, a time nor a file: {HOW_TO_WRITE}")
    if len(rates_bps) > 1 or len(capacities) > 1 or len(delays) > 1 or len(times_ms) > 2:
        raise ConfigurationError(f"{text!r} says something twice: {HOW_TO_WRITE}")
    if delays and times_ms:
        raise ConfigurationError(f"{text!r} gives a time beside a trace of the delay: leave one of them out")
    rate_bps = rates_bps[0] if rates_bps else None
    round_trip_ms, jitter_ms = (*times_ms, 0.0, 0.0)[:2]
    return LinkShape(
        uplink=capacities[0] if capacities else rate_bps,
        downlink=rate_bps,
        round_trip=delays[0] if delays else round_trip_ms,
        jitter_ms=jitter_ms,
    )


def read_trace(path: Path) -> CapacityTrace | DelayTrace:
    """Read a mahimahi or cicv5g file; ConfigurationError, with the line where there is one, for anything else."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read the trace {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no trace, as it is not text: {HOW_TO_WRITE}") from None
    columns = lines[0].split() if lines else []
    if _SENT_AT in columns and _ROUND_TRIP in columns:
        return _read_cicv5g(path, columns, lines[1:])
    return _read_mahimahi(path, lines)


def _read_mahimahi(path: Path, lines: list[str]) -> CapacityTrace:
    times_ms: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip().isdecimal():
            raise ConfigurationError(
                f"{path}, line {number}: {line[:40]!r} is not a whole number of milliseconds; "
                "a mahimahi trace has one in each line, and a cicv5g trace begins with its column names"
            )
        times_ms.append(int(line))
        if len(times_ms) > 1 and times_ms[-1] < times_ms[-2]:
            raise ConfigurationError(f"{path}, line {number}: {times_ms[-1]} ms comes after {times_ms[-2]} ms; sort it")
    if not times_ms or times_ms[-1] == 0:
        raise ConfigurationError(f"{path} has no packet after its time 0, so nothing would ever leave")
    return CapacityTrace(array("d", (time_ms / 1000 for time_ms in times_ms)))


def _read_cicv5g(path: Path, columns: list[str], rows: list[str]) -> DelayTrace:
    sent_at, round_trip = columns.index(_SENT_AT), columns.index(_ROUND_TRIP)
    times_ms: list[float] = []
    round_trips_ms: list[float] = []
    newest_ms = 0.0
    for number, row in enumerate(rows, start=2):
        values = row.split()
        try:
            time_ms, round_trip_ms = float(values[sent_at]), float(values[round_trip])
        except (IndexError, ValueError):
            raise ConfigurationError(
                f"{path}, line {number}: no {_SENT_AT} and {_ROUND_TRIP} in {row[:40]!r}"
            ) from None
        if not 0 <= round_trip_ms < math.inf or not newest_ms <= time_ms < math.inf:
            raise ConfigurationError(f"{path}, line {number}: a negative delay, or a time before the line above")
        newest_ms = time_ms
        times_ms.append(time_ms)
        round_trips_ms.append(round_trip_ms)
    if len(times_ms) < 2 or times_ms[-1] == times_ms[0]:
        raise ConfigurationError(f"{path} has fewer than two measurements at different times")
    return DelayTrace(array("d", ((time_ms - times_ms[0]) / 1000 for time_ms in times_ms)), array("d", round_trips_ms))
