"""Answers of an OpenAI-compatible server to the scenes of an evaluation, asked as a cloud node would ask it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..bus.errors import BackendError
from ..bus.kinds import EXPLAIN
from ..cloud_node.backends.chat_client import ChatClient
from ..cloud_node.backends.examples import Examples
from ..cloud_node.backends.gateway import server_address
from ..cloud_node.backends.prompts import INSTRUCTIONS, chat
from ..cloud_node.configuration import CloudConfiguration
from ..datasets.evaluation_scenes import EvaluationScene
from ..datasets.findings import Findings

# An evaluation has no deadline, but must come to an end.
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class ServerAnswers:
    """See `Outside` in models/scoreboard.py. configuration: of a cloud node with backend "openai"."""

    configuration: CloudConfiguration

    @property
    def name(self) -> str:
        return f"{self.configuration.model} on {server_address(self.configuration).shown_url}"

    def answers(
        self, scenes: Iterable[EvaluationScene], findings: Findings, advance: Callable[[int], None]
    ) -> list[tuple[EvaluationScene, str]]:
        """What the server says to the explain question about each scene.

        findings: counts scenes that it refuses or says nothing about. Raises BackendError where it cannot be asked.
        """
        return asyncio.run(self._all_answers(scenes, findings, advance))

    async def _all_answers(
        self, scenes: Iterable[EvaluationScene], findings: Findings, advance: Callable[[int], None]
    ) -> list[tuple[EvaluationScene, str]]:
        configuration, answers = self.configuration, list[tuple[EvaluationScene, str]]()
        examples = None
        if configuration.examples_log is not None:
            examples = Examples.of_log(Path(configuration.examples_log), seed=configuration.seed)
        async with ChatClient(server_address(configuration), counters=Counter()) as client:
            coming = iter(scenes)
            while some := list(itertools.islice(coming, configuration.parallel_requests)):
                said = await asyncio.gather(*(self._answer(client, examples, scene, findings) for scene in some))
                answers += [(scene, text) for scene, text in zip(some, said, strict=True) if text is not None]
                advance(len(some))
        return answers

    async def _answer(
        self, client: ChatClient, examples: Examples | None, scene: EvaluationScene, findings: Findings
    ) -> str | None:
        telemetry, configuration = dict(scene.reference.telemetry), self.configuration
        chosen = examples.nearest(EXPLAIN, telemetry, configuration.examples) if examples is not None else []
        instructions = INSTRUCTIONS if configuration.instructions is None else configuration.instructions
        messages = chat(instructions, chosen, EXPLAIN, EXPLAIN.prompt, scene.jpeg, telemetry)
        try:
            completion = await client.complete(
                messages, max_tokens=configuration.max_tokens, deadline_s=time.monotonic() + _PATIENCE_S
            )
        except TimeoutError:
            raise BackendError(
                "unreachable", f"{self.name} has not answered within {_PATIENCE_S:.0f} s: look at its own log"
            ) from None
        except BackendError as error:
            if error.reason not in ("empty", "refused"):
                raise
            findings.add(f"the server gave no answer: {error.reason}", scene.reference.id)
            return None
        return completion.text
