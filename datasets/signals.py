"""COVESA VSS names of the vehicle signals that a driving log carries, with their units.

One departure from VSS, which counts yaw positive to the left: here it is positive to the RIGHT, as the compass course
of BDD-X's readings runs.
"""

from __future__ import annotations

SPEED_KMH = "Vehicle.Speed"
ACCELERATION_MPS2 = "Vehicle.Acceleration.Longitudinal"
YAW_RATE_DEG_S = "Vehicle.AngularVelocity.Yaw"
HEADING_DEG = "Vehicle.CurrentLocation.Heading"
LATITUDE_DEG = "Vehicle.CurrentLocation.Latitude"
LONGITUDE_DEG = "Vehicle.CurrentLocation.Longitude"
