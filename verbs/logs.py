"""`roadside log`: driving logs, and a run as a log for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json

verbs = typer.Typer(no_args_is_help=True, help="Driving logs: make rendered ones, look at them, count; export a run.")


@verbs.command("make", epilog="Example:  roadside log make --seed 7 --count 4 mylog")
def log_make(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    seed: Annotated[int, typer.Option()] = 0,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Clips.")] = 8,
) -> None:
    """Render a driving log in BDD-X's format: videos, telemetry, annotations, splits."""
    from rich.console import Console
    from rich.progress import Progress

    from ..datasets.making import make_log

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rendering", total=count)
        make_log(
            out, seed=seed, count=count, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    typer.echo(f"{count} clips in {out}; try: roadside log show {out}")


@verbs.command("show", epilog="Example:  roadside log show mylog --png sheet.png")
def log_show(
    log: Annotated[Path | None, typer.Argument(help="Folder of a log [default: the bundled one]")] = None,
    png: Annotated[Path, typer.Option(help="Picture to write.")] = Path("contact-sheet.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips, from the first on.")] = 12,
) -> None:
    """Draw a contact sheet: each clip's frames with time, telemetry and ground truth."""
    from ..datasets.contact_sheet import contact_sheet
    from ..datasets.drivelog import DriveLog, bundled_log_path

    contact_sheet(DriveLog.open(log or bundled_log_path()), png, clips=clips)
    typer.echo(f"wrote {png}")


@verbs.command("info", epilog="Example:  roadside log info bdd-x --videos --json")
def log_info(
    log: Annotated[Path | None, typer.Argument(help="Folder of a log [default: the bundled one]")] = None,
    videos: Annotated[bool, typer.Option("--videos", help="Also open every video, to find broken ones.")] = False,
    as_json: Json = False,
) -> None:
    """Count what a log holds, and what of it could not be used, by reason, the first few by name."""
    from rich.console import Console
    from rich.progress import Progress

    from ..datasets.drivelog import DriveLog, bundled_log_path
    from ..datasets.inventory import take_inventory

    drive = DriveLog.open(log or bundled_log_path())
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at the files", total=None)
        inventory = take_inventory(
            drive, open_videos=videos, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if as_json:
        typer.echo(json.dumps(inventory))
        return
    typer.echo(f"{inventory['rows']:,} rows ({inventory['blank_rows']:,} blank), {inventory['videos']:,} videos")
    typer.echo("segments: " + ", ".join(f"{name} {count:,}" for name, count in inventory["segments"].items()))
    typer.echo(f"clips whose video is here: {inventory['clips']:,}")
    for heading, key in {
        "dropped from the annotations": "dropped",
        "odd but used": "kept",
        "telemetry": "info_faults",
        "videos": "video_faults",
    }.items():
        typer.echo(f"{heading}: " + ("" if inventory[key] else "nothing"))
        for reason, count in sorted(inventory[key].items(), key=lambda found: -found[1]):
            places = inventory["examples"][reason]
            more = ", ..." if len(places) < count else ""
            typer.echo(f"  {count:>7,}  {reason} ({', '.join(places)}{more})")


@verbs.command("export", epilog="Example:  roadside log export runs/20260101-120000-abcd run.mcap")
def log_export(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    out: Annotated[Path, typer.Argument(help="MCAP file to write; it opens in Foxglove.")],
    as_json: Json = False,
) -> None:
    """Write a run as MCAP: pictures that were kept, answers, telemetry under VSS names, outcomes, node states."""
    from ..qos.exports.mcap import write_mcap
    from ..qos.run import RunDirectory

    counts = write_mcap(RunDirectory.open(run), out)
    if as_json:
        typer.echo(json.dumps({"file": str(out), "messages": counts}))
        return
    for topic, count in counts.items():
        typer.echo(f"{count:>8,}  {topic}")
    typer.echo(f"{sum(counts.values()):,} messages in {out}")
