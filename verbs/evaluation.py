"""`roadside evaluate`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Model, progress_bar

if TYPE_CHECKING:
    from ..datasets.findings import Findings
    from .server_answers import ServerAnswers

verbs = typer.Typer()

# Each table's headings, with the key of a row whose value stands under it and how that is written.
_MEANING = {
    "action right": ("action_accuracy", ".1%"),
    "reason right": ("justification_accuracy", ".1%"),
    "details right": ("details_accuracy", ".1%"),
    "cloud's tokens": ("cloud_token_share", ".1%"),
    "as full": ("agrees_with_full", ".1%"),
    "speed RMSE": ("speed_rmse", ".2f"),
    "course RMSE": ("course_rmse", ".2f"),
}
_WORDS = {
    "action BLEU-4": ("bleu4_action", ".1f"),
    "action CIDEr": ("cider_action", ".1f"),
    "action ROUGE": ("rouge_l_action", ".1f"),
    "action METEOR": ("meteor_action", ".1f"),
    "reason BLEU-4": ("bleu4_justification", ".1f"),
    "reason CIDEr": ("cider_justification", ".1f"),
    "reason ROUGE": ("rouge_l_justification", ".1f"),
    "reason METEOR": ("meteor_justification", ".1f"),
}


@verbs.command(epilog="Example:  roadside evaluate --quick --theta-curve curve.png")
def evaluate(
    model: Model = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A log in BDD-X's format, or RAG-Driver's captions [default: the rendered test split]"),
    ] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Score generated captions against --data, without a model: CSV or JSON; may be repeated.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the log: train, val, test or all.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many scenes.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="150 scenes, and rougher figures.")] = False,
    theta_curve: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also try exit thresholds, and draw what each costs and gives."),
    ] = None,
    meteor: Annotated[bool, typer.Option("--meteor", help="Also METEOR; needs roadside[meteor], and Java.")] = False,
    classes: Annotated[bool, typer.Option("--classes", help="Also print the scores of each class.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Score a model of an OpenAI-compatible server, up to /v1; --model is its name.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The environment's variable that holds the server's API key.")
    ] = None,
    examples_log: Annotated[
        Path | None, typer.Option(help="Driving log whose training split gives the server examples [default: none]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model as the field does, beside baselines that need none. The rendered test split takes some minutes."""
    # As Ctrl-C, so that the processes which render go down with this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from ..models.scoreboard import EvaluationOptions
    from ..models.scoreboard import evaluate as score

    thetas: tuple[float, ...] = ()
    if theta_curve is not None:
        from ..models.evaluation import THETAS

        thetas = THETAS
    outside = _server(url, model, api_key_env, examples_log) if url is not None else None
    options = EvaluationOptions(
        model=model if outside is None else None,
        data=data,
        captions=tuple(captions or ()),
        split=split,
        limit=limit,
        thetas=thetas,
        meteor=meteor,
    )
    scoreboard = score(options.quick() if quick else options, progress_bar, outside)
    _tell_findings(scoreboard.findings)
    if theta_curve is not None:
        from ..models.theta_curve import draw_theta_curve

        draw_theta_curve(scoreboard.report["rows"], theta_curve)
        typer.echo(f"wrote {theta_curve}", err=True)
    if as_json:
        typer.echo(json.dumps(scoreboard.report))
    else:
        _print_report(scoreboard.report, classes=classes)


def _server(url: str, model: str | None, api_key_env: str | None, examples_log: Path | None) -> ServerAnswers:
    from ..bus.errors import ConfigurationError
    from ..cloud_node.configuration import CloudConfiguration
    from .server_answers import ServerAnswers

    if model is None:
        raise ConfigurationError("a server has several models: give its name for one with --model")
    examples = None if examples_log is None else str(examples_log)
    return ServerAnswers(
        CloudConfiguration(backend="openai", url=url, model=model, api_key_env=api_key_env, examples_log=examples)
    )


def _tell_findings(findings: Findings) -> None:
    for reason, count in findings.counts.most_common():
        places = findings.examples[reason]
        more = ", ..." if len(places) < count else ""
        typer.echo(f"{count:,} x {reason} ({', '.join(places)}{more})", err=True)


def _print_report(report: dict[str, Any], *, classes: bool) -> None:
    from rich.console import Console

    console, rows = Console(), report["rows"]
    typer.echo(f"{report['model'] or 'no model'} on {report['data']}: {report['n']:,} scored\n")
    first = rows[0]
    console.print(_table(rows, _MEANING))
    typer.echo(
        "right: of the references that name a class which the parser knows "
        f"({first['action_judged']:.1%} of the actions, {first['justification_judged']:.1%} of the reasons).\n"
    )
    console.print(_table(rows, _WORDS))
    typer.echo("Of words, times 100 (CIDEr-D, ROUGE-L): to be compared on the same references only.")
    if classes:
        for part in ("action", "justification"):
            console.print(_class_table(part, rows))


def _table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]]) -> Any:
    """Of those columns that some row has."""
    from rich.table import Table

    table = Table(box=None)
    table.add_column("who", no_wrap=True)
    shown = {heading: how for heading, how in columns.items() if any(row.get(how[0]) is not None for row in rows)}
    for heading in shown:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["name"], *(_cell(row.get(key), written) for key, written in shown.values()))
    return table


def _cell(value: float | None, written: str) -> str:
    return "–" if value is None else format(value, written)


def _class_table(part: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=f"\nShare of right answers by {part}", box=None)
    table.add_column("class", no_wrap=True)
    table.add_column("n", justify="right")
    compared = [row for row in rows if _has_classes_of_its_own(row, part) and row["n"] == rows[0]["n"]]
    for row in compared:
        table.add_column(row["name"].replace("-", " ").replace("+", " + "), justify="right")
    for name, first in compared[0][f"{part}_by_class"].items():
        shares = (row[f"{part}_by_class"][name]["accuracy"] for row in compared)
        table.add_row(name, str(first["n"]), *(f"{share:.0%}" for share in shares))
    return table


def _has_classes_of_its_own(row: dict[str, Any], part: str) -> bool:
    """Not so thresholds that were tried on the way, and baselines that say one class for whatever is so."""
    return "theta" not in row and row["name"] not in ("constant", "telemetry-rule") and bool(row[f"{part}_by_class"])
