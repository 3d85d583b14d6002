"""roadside: a driving co-pilot spread over vehicle, roadside edge and cloud.

The repository root is this package; README.md shows the two commands to start with.
"""

__version__ = "0.1.0"
