"""The thread that computes: urgency, order, giving way, and what becomes of work that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.models.inference_worker import InferenceWorker


@pytest.fixture
def worker() -> Iterator[InferenceWorker]:
    made = InferenceWorker()
    yield made
    made.close()


@settings(max_examples=50, deadline=None)
@given(ranks=st.lists(st.integers(0, 5), max_size=20), urgent=st.integers(0, 3))
def test_the_most_urgent_goes_first_and_equals_keep_their_order(ranks: list[int], urgent: int):
    async def run() -> list[tuple[int, int]]:
        worker, held, order = InferenceWorker(), threading.Event(), []
        blocking = asyncio.ensure_future(worker.run(held.wait, rank=0))
        await asyncio.sleep(0.005)  # the thread is busy now, so that the rest has to wait
        rest = [worker.run(lambda i=i, rank=rank: order.append((rank, i)), rank=rank) for i, rank in enumerate(ranks)]
        rest += [worker.run_urgently(lambda i=i: order.append((-1, i))) for i in range(urgent)]
        waiting = [asyncio.ensure_future(each) for each in rest]
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(blocking, *waiting)
        worker.close()
        return order

    order = asyncio.run(run())
    assert order == sorted(order)
    assert len(order) == len(ranks) + urgent


async def test_it_returns_what_the_function_returns_and_raises_what_it_raises(worker: InferenceWorker):
    assert await worker.run(lambda: threading.current_thread().name, rank=0) == "inference"
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0, rank=0)
    assert await worker.run(lambda: 7, rank=0) == 7, "an error ends the work, not the thread"


async def test_work_should_give_way_only_to_what_is_more_urgent(worker: InferenceWorker):
    held, seen = threading.Event(), []

    def long_answer() -> None:
        held.wait()
        seen.extend(worker.should_give_way(rank) for rank in (0, 1, 2))

    answering = asyncio.ensure_future(worker.run(long_answer, rank=0))
    await asyncio.sleep(0.005)
    waiting = asyncio.ensure_future(worker.run(lambda: None, rank=1))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(answering, waiting)
    assert seen == [False, False, True]


async def test_what_nobody_waits_for_any_more_is_not_computed(worker: InferenceWorker):
    held, computed = threading.Event(), []
    blocking = asyncio.ensure_future(worker.run(held.wait, rank=0))
    given_up = asyncio.ensure_future(worker.run(lambda: computed.append(1), rank=1))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    held.set()
    await blocking
    await worker.run(lambda: None, rank=2)
    assert computed == []
