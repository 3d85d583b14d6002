"""A run directory: everything that is kept of one run, and enough about its circumstances to repeat it.

manifest.json              configuration, seed, versions, commit, machine, when it began and ended
ledger.sqlite              what the recorder heard on the bus
journals/<vehicle>.sqlite  what each vehicle itself remembers of its tasks
logs/<process>.log         the processes' logs
frames/                    what the vehicles saw, where the recorder was told to keep it (frames.py)
messages/                  what each process heard and said, where it was told to keep it (bus/message_log.py)
report.json                the summary, as `roadside report RUN --json` prints it
"""

from __future__ import annotations

import os
import platform
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from ..bus.errors import RunError
from ..bus.machine import processor_name

MANIFEST_VERSION = 1

BrokerKind = Literal["mosquitto", "amqtt", "external"]

_PACKAGES = ("roadside", "aiomqtt", "amqtt", "msgspec", "numpy", "torch", "transformers")
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class Machine(msgspec.Struct, frozen=True):
    """cores: logical processors that this process may use."""

    cpu: str
    cores: int
    memory_bytes: int
    platform: str


class KeptFrames(msgspec.Struct, frozen=True, kw_only=True):
    """What the recorder kept of the vehicles' frames, and until when; the fields are those of FrameRetention.

    stored, expired, gave_way: frames written in all, deleted for their age, deleted for room, by the end of the
    recording. remaining, remaining_bytes: what was there then; more of it expires later.
    """

    keep: str
    max_age_s: float
    max_bytes: int
    stored: int = 0
    expired: int = 0
    gave_way: int = 0
    remaining: int = 0
    remaining_bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a run, as manifest.json holds them.

    configuration: the run's flags and TOML values by name. versions: of Python and of the installed packages.
    commit: of the checkout that the package lies in, with "-dirty" where it was changed; None outside a checkout.
    models: content hash by model name, known once the nodes have loaded them.
    frames: None where no frame was ever to be kept.
    ended_at: None while the run goes on, and for ever where it was killed.
    """

    manifest_version: int
    run_id: str
    argv: list[str]
    configuration: dict[str, Any]
    seed: int
    versions: dict[str, str]
    commit: str | None
    machine: Machine
    started_at: datetime
    ended_at: datetime | None = None
    broker: BrokerKind = "external"
    models: dict[str, str] = msgspec.field(default_factory=dict)
    frames: KeptFrames | None = None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of a run; made by `create`, found again by `open`."""

    path: Path

    @classmethod
    def create(
        cls, path: Path | None, *, configuration: Mapping[str, Any], seed: int, argv: Sequence[str]
    ) -> RunDirectory:
        """Make a run directory and write its manifest.

        path: None: runs/<date-time>-<short id> below the working directory.
        configuration: anything that JSON can hold.
        Raises RunError where the folder has something in it already, or cannot be made.
        """
        started_at = datetime.now(UTC)
        if path is None:
            path = Path("runs") / f"{started_at.astimezone():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunError(f"{path} is not empty: give a new folder, a run never overwrites anything")
            (path / "journals").mkdir()
            (path / "logs").mkdir()
        except OSError as error:
            raise RunError(
                f"cannot make the run directory {path} ({error.strerror}): give a folder that can be written"
            ) from error
        run = cls(path.resolve())
        run._write_manifest(
            Manifest(
                manifest_version=MANIFEST_VERSION,
                run_id=run.path.name,
                argv=list(argv),
                configuration=dict(configuration),
                seed=seed,
                versions=_versions(),
                commit=_commit(),
                machine=this_machine(),
                started_at=started_at,
            )
        )
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Find an existing run. Raises RunError, which says what to do, where the folder is none."""
        run = cls(path.resolve())
        if not run.manifest_path.is_file():
            raise RunError(
                f"{path} is not a run directory (it has no manifest.json): give one that `roadside demo` made"
            )
        run.read_manifest()
        return run

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def report_path(self) -> Path:
        return self.path / "report.json"

    @property
    def frames_path(self) -> Path:
        return self.path / "frames"

    @property
    def messages_path(self) -> Path:
        return self.path / "messages"

    def journal_path(self, vehicle: str) -> Path:
        return self.path / "journals" / f"{vehicle}.sqlite"

    def log_path(self, process: str) -> Path:
        return self.path / "logs" / f"{process}.log"

    def journal_paths(self) -> list[Path]:
        """The journals that exist by now, in the order of their vehicles' names."""
        return sorted((self.path / "journals").glob("*.sqlite"))

    def read_manifest(self) -> Manifest:
        """Raises RunError where it cannot be read or is of another version."""
        try:
            manifest = msgspec.json.decode(self.manifest_path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RunError(f"{self.manifest_path} cannot be read ({error}): restore it, or repeat the run") from error
        if manifest.manifest_version != MANIFEST_VERSION:
            raise RunError(
                f"{self.manifest_path} is of version {manifest.manifest_version}, this roadside reads version"
                f" {MANIFEST_VERSION}: use the version of roadside that stands in it"
            )
        return manifest

    def note_broker(self, broker: BrokerKind) -> None:
        """Write down which broker the run uses."""
        self._write_manifest(msgspec.structs.replace(self.read_manifest(), broker=broker))

    def note_models(self, models: Mapping[str, str]) -> None:
        """Write down content hashes by model name, added to those that are there."""
        manifest = self.read_manifest()
        self._write_manifest(msgspec.structs.replace(manifest, models={**manifest.models, **models}))

    def note_frames(self, frames: KeptFrames) -> None:
        """Write down what was kept of the vehicles' frames."""
        self._write_manifest(msgspec.structs.replace(self.read_manifest(), frames=frames))

    def finish(self) -> None:
        """Write down that the run is over."""
        self._write_manifest(msgspec.structs.replace(self.read_manifest(), ended_at=datetime.now(UTC)))

    def write_report(self, summary: Mapping[str, Any]) -> None:
        """Keep the summary as report.json."""
        _write_json(self.report_path, summary)

    def _write_manifest(self, manifest: Manifest) -> None:
        _write_json(self.manifest_path, manifest)


def _write_json(path: Path, value: object) -> None:
    """Replace a file as a whole: whoever reads meanwhile sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunError(f"cannot write {path} ({error.strerror}): free space on its disk, check permissions") from error


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    # Asked only where the package root is the checkout's own: a virtual environment may lie in somebody else's.
    if not (_PACKAGE_ROOT / ".git").exists():
        return None
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(describe, cwd=_PACKAGE_ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def this_machine() -> Machine:
    """What figures of this machine should be read with."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(psutil.cpu_count() or 1)
    return Machine(
        cpu=processor_name(),
        cores=len(usable),
        memory_bytes=psutil.virtual_memory().total,
        platform=platform.platform(),
    )
