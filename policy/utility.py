"""What a place is worth for a task: utility from latency, energy and quality. Live and simulated tasks alike.

The papers that roadside follows publish no constants that could be used here (Hu et al., "Cloud-edge collaborative
ADAS", IEEE IoT-J 2025, keep theirs), so these are ours, all of them configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

_Each = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UtilityModel:
    """U = quality_weight q 1[T <= D] - latency_weight min(T / D, latency_cap) - energy_weight E / reference_energy_j.

    q: probability that the answer is right; T: latency; D: deadline; E: joules of node and radio together.
    transmit_power_w, nominal_uplink_bps: the vehicle's radio, for the energy of an upload.
    """

    quality_weight: float = 1.0
    latency_weight: float = 0.25
    energy_weight: float = 0.15
    latency_cap: float = 2.0
    reference_energy_j: float = 50.0
    transmit_power_w: float = 2.0
    nominal_uplink_bps: float = 20e6

    @overload
    def utility(self, *, latency_ms: float, deadline_ms: float, energy_j: float, quality: float) -> float: ...
    @overload
    def utility(self, *, latency_ms: _Each, deadline_ms: float, energy_j: _Each, quality: _Each) -> _Each: ...
    def utility(
        self, *, latency_ms: float | _Each, deadline_ms: float, energy_j: float | _Each, quality: float | _Each
    ) -> float | _Each:
        """Dimensionless, of one task or of [n] places at once.

        1 is a right answer at once for nothing, negative is worse than not asking.
        """
        in_time = latency_ms <= deadline_ms
        return (
            self.quality_weight * quality * in_time
            - self.latency_weight * np.minimum(latency_ms / deadline_ms, self.latency_cap)
            - self.energy_weight * energy_j / self.reference_energy_j
        )

    def nominal_upload_ms(self, upload_bytes: int) -> float:
        """Air time of an upload at the nominal uplink rate."""
        return upload_bytes * 8000 / self.nominal_uplink_bps

    def transmit_energy_j(self, upload_bytes: int) -> float:
        """Radio energy of an upload: transmit power times air time at the nominal uplink rate."""
        return self.transmit_power_w * self.nominal_upload_ms(upload_bytes) / 1000
