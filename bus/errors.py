"""Every error that roadside raises on purpose, as one tree.

    RoadsideError                       its text is one line that says what to do next
    ├── ConfigurationError              a flag, TOML key, file or folder that the user gave cannot be used
    │   ├── LogError                    a driving log, video or camera that cannot be read
    │   │   └── VideoError              one video or camera of it; has a `reason`
    │   ├── ModelError                  an unknown model, or one that cannot be loaded
    │   │   ├── SplitError              a model whose split does not reproduce the unsplit model
    │   │   └── WeightsError            weights that a policy cannot be served with; has a `reason`
    │   └── RunError                    a run directory that cannot be read or written
    ├── BusError
    │   ├── BrokerError                 the broker cannot be started, reached or logged in to
    │   └── OutboxFull                  the connection has been away for so long that nothing more can be kept
    ├── MessageRefused                  a received message that is not what its topic carries; has a `reason`
    ├── BackendError                    a model server elsewhere that does not answer; has a `reason`
    └── FleetError                      a process of the fleet died or did not come up

Who handles them: the command line prints a `RoadsideError` in one line and exits with 1 (2 for a
`ConfigurationError`); the connection counts a `MessageRefused` by reason and goes on; a node refuses the task
that met a `BackendError`; a replay counts a `VideoError` by reason and goes on with its next clip; a sweep writes a
`RoadsideError` into the row of the run that failed; a vehicle counts a learner's `WeightsError` by reason and keeps the
weights that it has; the recorder logs a `RunError` about a kept frame and goes on with
its ledger; a report names the `RunError` of a damaged part of its run, and reports the rest; nothing else catches them.
"""

from __future__ import annotations


class RoadsideError(Exception):
    """Base of every error raised on purpose."""


class ConfigurationError(RoadsideError):
    """A flag, TOML key, file or folder that the user gave cannot be used."""


class LogError(ConfigurationError):
    """A driving log, video or camera that cannot be read."""


class VideoError(LogError):
    """A video or camera that shows nothing.

    `reason` is a short fixed phrase ("video missing", "video unreadable", ...), fit to be a counter's label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ModelError(ConfigurationError):
    """An unknown model, or one that cannot be loaded."""


class SplitError(ModelError):
    """A model whose split does not reproduce the unsplit model."""


class WeightsError(ModelError):
    """Weights that a policy cannot be served with.

    `reason` is a short fixed phrase ("unreadable", "too large", ...), fit to be a counter's label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RunError(ConfigurationError):
    """A run directory that cannot be read or written."""


class BusError(RoadsideError):
    """Base of what goes wrong between a process and its broker."""


class BrokerError(BusError):
    """The broker cannot be started, reached or logged in to."""


class OutboxFull(BusError):
    """The connection has been away for so long that nothing more can be kept."""


class MessageRefused(RoadsideError):
    """A received message that is not what its topic carries.

    `reason` is a short fixed word ("schema", "sender", ...), fit to be a counter's label; the text has the detail.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class BackendError(RoadsideError):
    """A model server elsewhere that cannot be asked, refuses, or answers what is no answer.

    `reason` is a short fixed word ("unreachable", "overloaded", ...), fit to be a counter's label; the text says what
    to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FleetError(RoadsideError):
    """A process of the fleet died or did not come up."""
