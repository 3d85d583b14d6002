"""Asks a chat-completions server, within a time limit and with patience for what passes.

httpx2 does the HTTP: it is small, it comes with the `edge` extra anyway (huggingface_hub stands on it), and unlike the
`openai` package it leaves repeating and time limits to us, which here belong to the task.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx2

from ...bus.errors import BackendError, ConfigurationError
from ...datasets.sources import without_password
from .chat_replies import Completion, read_completion, refusal

RETRIES = 3
_FIRST_PAUSE_S = 0.1
_BACKOFF = 2.0
_JITTER = 0.5  # of a pause, on top of it: many nodes must not come back in one burst
_CONNECT_TIMEOUT_S = 5.0
_LARGEST_REPLY_BYTES = 1024 * 1024
_PATH = "/chat/completions"
# A server that fails now may answer in a moment; for any other reason it would say the same again.
_PASSES_WITH_TIME = frozenset(("unreachable", "overloaded", "server-error"))


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """url: up to and without /chat/completions. model: the server's name for it. connections: requests at once."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    connections: int = 8

    @property
    def shown_url(self) -> str:
        """Without a password, for messages."""
        return without_password(self.url)


def checked_url(url: str) -> str:
    """A server's URL without what follows it. Raises ConfigurationError for one that cannot be asked."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"{without_password(url)} is not a URL ({error}): write http://host:8000/v1") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{without_password(url)} is not a web server's URL: write http://host:8000/v1")
    return url.rstrip("/").removesuffix(_PATH)


class ChatClient:
    """Use as an async context manager. May be asked several times at once.

    counters: gets backend_requests, backend_retries.<reason> and backend_errors.<reason>.
    """

    def __init__(self, address: ServerAddress, *, counters: Counter[str], jitter: random.Random | None = None) -> None:
        self._address = address
        self._counters = counters
        self._jitter = jitter or random.Random()
        self._fields = _Fields()
        headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        self._http = httpx2.AsyncClient(
            headers=headers,
            # How long an answer may take is the task's business.
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=address.connections),
        )

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def complete(self, messages: list[dict[str, Any]], *, max_tokens: int, deadline_s: float) -> Completion:
        """The server's answer. deadline_s: seconds of the monotonic clock; then the request is broken off.

        What passes with time is tried again with growing pauses while there is time for it, at most `RETRIES` times.
        Raises TimeoutError at the deadline, BackendError where the server refuses or cannot be asked.
        """
        async with asyncio.timeout(deadline_s - time.monotonic()):
            retries = 0
            while True:
                try:
                    return await self._ask(messages, max_tokens)
                except _Failed as failed:
                    reason = failed.error.reason
                    pause_s = max(self._pause_s(retries), failed.retry_after_s)
                    time_is_left = time.monotonic() + pause_s < deadline_s
                    if reason not in _PASSES_WITH_TIME or retries == RETRIES or not time_is_left:
                        self._counters[f"backend_errors.{reason}"] += 1
                        raise failed.error from None
                retries += 1
                self._counters[f"backend_retries.{reason}"] += 1
                await asyncio.sleep(pause_s)

    def _pause_s(self, retries: int) -> float:
        return _FIRST_PAUSE_S * _BACKOFF**retries * (1 + _JITTER * self._jitter.random())

    async def _ask(self, messages: list[dict[str, Any]], max_tokens: int) -> Completion:
        """One request, or a second one where the server wants its fields named otherwise."""
        status, headers, body = await self._post(self._fields.request(self._address.model, messages, max_tokens))
        if status == 400 and self._fields.adapt(body):
            status, headers, body = await self._post(self._fields.request(self._address.model, messages, max_tokens))
        address = self._address
        if status == 200:
            try:
                return read_completion(body, address.shown_url)
            except BackendError as error:
                raise _Failed(error) from None
        error = refusal(status, body, url=address.shown_url, model=address.model, with_key=address.api_key is not None)
        raise _Failed(error, _retry_after_s(headers))

    async def _post(self, request: dict[str, Any]) -> tuple[int, httpx2.Headers, bytes]:
        self._counters["backend_requests"] += 1
        try:
            async with self._http.stream("POST", self._address.url + _PATH, json=request) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _LARGEST_REPLY_BYTES:
                        break
                return response.status_code, response.headers, bytes(body)
        except httpx2.HTTPError as error:
            url, why = self._address.shown_url, str(error) or type(error).__name__
            raise _Failed(
                BackendError("unreachable", f"no answer from {url} ({why}): start the server there, or correct the URL")
            ) from None


class _Failed(Exception):
    """One attempt came to nothing. retry_after_s: how long the server wants to be left alone."""

    def __init__(self, error: BackendError, retry_after_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


@dataclass
class _Fields:
    """Names of request fields, on which servers differ; learnt from their refusals."""

    limit: str = "max_tokens"
    greedy: bool = True

    def request(self, model: str, messages: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        request = {"model": model, "messages": messages, self.limit: max_tokens}
        return request | {"temperature": 0} if self.greedy else request

    def adapt(self, refusal_body: bytes) -> bool:
        """Whether a refusal is about a field that can be named otherwise or left out; it then is from now on."""
        if self.limit == "max_tokens" and b"max_completion_tokens" in refusal_body:
            self.limit = "max_completion_tokens"
            return True
        if self.greedy and b"temperature" in refusal_body:
            self.greedy = False
            return True
        return False


def _retry_after_s(headers: httpx2.Headers) -> float:
    """Of a Retry-After header in seconds; 0 where there is none, or a date, which nobody sends for a moment's load."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
