"""The verb that says what runs over the bus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside topics --asyncapi asyncapi.json")
def topics(
    asyncapi: Annotated[
        Path | None,
        typer.Option("--asyncapi", metavar="FILE", help="Write them as an AsyncAPI 3.0 document; -: to stdout."),
    ] = None,
) -> None:
    """List the topics of the bus: address, who sends what, and how; or write them for other programs' tools."""
    from ..bus.asyncapi import asyncapi_document
    from ..bus.errors import ConfigurationError
    from ..bus.topics import PREFIX, TOPICS

    if asyncapi is None:
        for topic in TOPICS:
            messages = ", ".join(body.__name__ for body in topic.bodies)
            how = f"QoS {topic.qos}{', retained' if topic.retained else ''}; from {{{topic.sender}}}"
            typer.echo(f"{PREFIX}/{{fleet}}/{topic.pattern}\n    {topic.about}\n    {messages}; {how}")
        return
    document = json.dumps(asyncapi_document(), indent=2)
    if str(asyncapi) == "-":
        typer.echo(document)
        return
    try:
        asyncapi.write_text(f"{document}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {asyncapi}: {error.strerror}; name a file in a folder of yours"
        ) from None
    typer.echo(f"{len(TOPICS)} topics are in {asyncapi}")
