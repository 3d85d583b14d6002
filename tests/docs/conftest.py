"""What tests of guides and containers share: a command line is checked without being run."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
import typer
from roadside.cli import app


class Parse(Protocol):
    def __call__(self, arguments: list[str], *, may_be_incomplete: bool = False) -> str: ...


@pytest.fixture(scope="session")
def parse_command() -> Parse:
    """Read `roadside`'s arguments as it would itself, and run nothing; the verb. Fails where it would say no.

    may_be_incomplete: arguments that a verb needs may be missing, for one that is only spoken of.
    """
    group = typer.main.get_command(app)

    def parse(arguments: list[str], *, may_be_incomplete: bool = False) -> str:
        command: Any = group
        context, rest, words = None, arguments, []
        while True:
            try:
                context = command.make_context(words[-1] if words else "roadside", list(rest), parent=context)
                left = _left(context)
                if not hasattr(command, "resolve_command") or (may_be_incomplete and not left):
                    return " ".join(words)
                found, command, rest = command.resolve_command(context, left)
            except Exception as error:
                # Help, and what a group alone shows, end it as well.
                if type(error).__name__ in ("Exit", "NoArgsIsHelpError"):
                    return " ".join(words)
                if may_be_incomplete and type(error).__name__ in ("MissingParameter", "BadOptionUsage"):
                    return " ".join(words)
                pytest.fail(f"roadside {' '.join(arguments)}: {getattr(error, 'message', None) or error}")
            assert found is not None
            words.append(found)

    return parse


def _left(context: Any) -> list[str]:
    """What a group has left over for its verb."""
    return [*context._protected_args, *context.args]
