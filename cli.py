"""The command line: its verbs stand in verbs/, each of which imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .bus.errors import ConfigurationError, RoadsideError
from .verbs import (
    asking,
    benches,
    evaluation,
    fine_tuning,
    fleet,
    links,
    logs,
    reference,
    replaying,
    runs,
    securing,
    showing,
    top,
    training,
)

app = typer.Typer(
    name="roadside",
    help="A driving co-pilot spread over vehicle, roadside edge and cloud, over MQTT.\n\n"
    "Begin with `roadside demo`: it needs no weights, no data, no broker and no GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order in which --help lists them.
for group in (runs, replaying, showing, top, fleet, securing, links, asking, evaluation, fine_tuning, reference):
    app.add_typer(group.verbs)
for name, group in {"log": logs, "train": training, "bench": benches}.items():
    app.add_typer(group.verbs, name=name)

# What the base install leaves out, by the extra that brings it.
_EXTRA_OF = {
    "torch": "edge",
    "transformers": "edge",
    "tokenizers": "edge",
    "safetensors": "edge",
    "httpx2": "openai",
    "nicegui": "ui",
    "uvicorn": "ui",
    "cryptography": "secure",
    "jinja2": "export",
    "markupsafe": "export",
    "mcap": "export",
    "pyarrow": "export",
    "accelerate": "train",
    "matplotlib": "train",
    "peft": "train",
    "scipy": "train",
}


def main() -> None:
    """Entry point of the console script: a `RoadsideError` becomes one line and an exit status."""
    try:
        app()
    except ConfigurationError as error:
        typer.echo(f"roadside: {error}", err=True)
        sys.exit(2)
    except RoadsideError as error:
        typer.echo(f"roadside: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get(error.name or "")
        if extra is None:
            raise
        typer.echo(f"roadside: this needs {error.name}; pip install 'roadside[{extra}]'", err=True)
        sys.exit(2)


def _print_version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
