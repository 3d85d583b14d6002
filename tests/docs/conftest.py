"""What tests of guides and containers share: a command line is checked without being run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer
from roadside.cli import app


@pytest.fixture(scope="session")
def parse_command() -> Callable[[list[str]], str]:
    """Read `roadside`'s arguments as it would itself, and run nothing; the verb. Fails where it would say no."""
    group = typer.main.get_command(app)

    def parse(arguments: list[str]) -> str:
        command: Any = group
        context, rest, words = None, arguments, []
        while True:
            name = words[-1] if words else "roadside"
            try:
                context = command.make_context(name, list(rest), parent=context)
                if not hasattr(command, "resolve_command"):
                    return " ".join(words)
                found, command, rest = command.resolve_command(context, _left(context))
            except Exception as error:
                pytest.fail(f"roadside {' '.join(arguments)}: {getattr(error, 'message', None) or error}")
            assert found is not None
            words.append(found)

    return parse


def _left(context: Any) -> list[str]:
    """What a group has left over for its verb."""
    return [*context._protected_args, *context.args]
