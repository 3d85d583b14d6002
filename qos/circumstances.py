"""Under which circumstances a run was made: what stands beside its figures, and beside another run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .run import Manifest


def vehicle_settings(manifest: Manifest, key: str) -> list[Any]:
    """The values that the run's vehicles had for a key of theirs, each once; None for one that was told none.

    A demo has one for all of them; a fleet's file has tables, of vehicles and of defaults. Empty where the run was only
    recorded, and nobody has told what its vehicles were told.
    """
    configuration = manifest.configuration
    if isinstance(tables := configuration.get("vehicle"), list):
        default = configuration.get("defaults", {}).get(key)
        return list(dict.fromkeys(table.get(key, default) for table in tables))
    return [configuration[key]] if key in configuration else []


def circumstances(manifest: Manifest, summary: Mapping[str, Any]) -> dict[str, str]:
    """What one must know to compare the run's figures with others', in words."""
    machine, configuration = manifest.machine, manifest.configuration
    settings = {name: value for name, value in configuration.items() if value not in (None, False)}
    ended = f"{manifest.ended_at:%Y-%m-%d %H:%M:%S} UTC" if manifest.ended_at else "not finished"
    return {
        "Machine": f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 1e9:.0f} GB, {machine.platform}",
        "When": f"{manifest.started_at:%Y-%m-%d %H:%M:%S} UTC to {ended}",
        "Policy": ", ".join(str(value or "the default") for value in vehicle_settings(manifest, "policy"))
        or "not recorded",
        "Link between vehicles and broker": str(
            configuration.get("link") or "unshaped (as the machines are connected)"
        ),
        "Seed": str(manifest.seed),
        "Broker": manifest.broker,
        "Energy": f"{summary['energy_j']['method']} (see the section on energy)",
        "Models": ", ".join(f"{name} {digest[:12]}" for name, digest in manifest.models.items()) or "not recorded",
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "Commit": manifest.commit or "not a checkout",
        "Command": " ".join(manifest.argv),
        "Settings": ", ".join(f"{name} = {value}" for name, value in settings.items()),
    }
