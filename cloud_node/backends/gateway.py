"""A cloud node as the gateway to a model server: its whole life."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import structlog

from ...bus.errors import ConfigurationError
from ...models.serving import serve_jobs
from ..configuration import CloudConfiguration
from .chat_client import ChatClient, ServerAddress, checked_url
from .examples import Examples, training_part
from .prompts import INSTRUCTIONS
from .server_runner import ServerRunner, ServerRunnerSettings
from .tariff import Tariff

log = structlog.get_logger()

_TOTALS = ("backend_requests", "prompt_tokens", "completion_tokens", "cost_millionths")


async def run(configuration: CloudConfiguration, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises ConfigurationError, BackendError or BrokerError before the first task where it cannot.
    """
    address = server_address(configuration)
    counters: Counter[str] = Counter()
    examples = await asyncio.to_thread(_examples, configuration)
    async with ChatClient(address, counters=counters) as client:
        runner = ServerRunner(client, _settings(configuration), examples, counters)
        if not await _checked(runner, stop):
            return
        log.info("a model server answers", url=address.shown_url, model=address.model, examples=len(examples or ()))
        if not runner.quality:
            log.warning("nobody has measured this model, so vehicles ask others first: say its quality")
        await serve_jobs(configuration, "cloud", lambda bus: (runner, None), stop)
    log.info("asked of the server in all", **{name: counters[name] for name in _TOTALS})


def check_server_settings(configuration: CloudConfiguration) -> None:
    """Raise ConfigurationError where URL, key or examples cannot be used; asks nobody."""
    server_address(configuration)
    if configuration.examples_log is not None:
        training_part(Path(configuration.examples_log))


def server_address(configuration: CloudConfiguration) -> ServerAddress:
    """Raises ConfigurationError for what is no URL, and for a key's variable that is not set."""
    assert configuration.url is not None, "an openai backend has one"
    assert configuration.model is not None, "an openai backend has one"
    key = None
    if (variable := configuration.api_key_env) is not None and not (key := os.environ.get(variable, "").strip()):
        raise ConfigurationError(f"the environment has no {variable}, where the API key should be: export it")
    return ServerAddress(
        checked_url(configuration.url), configuration.model, key, connections=configuration.parallel_requests
    )


def _settings(configuration: CloudConfiguration) -> ServerRunnerSettings:
    assert configuration.model is not None
    return ServerRunnerSettings(
        # A folder's whole path is a name to some servers, and too long for a message.
        model=configuration.model.rstrip("/").rsplit("/", 1)[-1][:96],
        quality=configuration.quality_by_kind,
        slots=configuration.parallel_requests,
        max_tokens=configuration.max_tokens,
        instructions=INSTRUCTIONS if configuration.instructions is None else configuration.instructions,
        examples=configuration.examples,
        tariff=Tariff(
            price_per_million_prompt_tokens=configuration.price_per_million_prompt_tokens,
            price_per_million_completion_tokens=configuration.price_per_million_completion_tokens,
            joules_per_prompt_token=configuration.joules_per_prompt_token,
            joules_per_completion_token=configuration.joules_per_completion_token,
        ),
    )


def _examples(configuration: CloudConfiguration) -> Examples | None:
    if configuration.examples_log is None or not configuration.examples:
        return None
    return Examples.of_log(Path(configuration.examples_log), seed=configuration.seed)


async def _checked(runner: ServerRunner, stop: asyncio.Event) -> bool:
    """Whether the server is of use; False where the stop came before it had answered."""
    checking, stopped = asyncio.ensure_future(runner.check()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({checking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if checking.done():
            await checking
        return checking.done()
    finally:
        checking.cancel()
        stopped.cancel()
