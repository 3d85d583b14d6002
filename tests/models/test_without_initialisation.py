from __future__ import annotations

import threading

import torch
from roadside.models.without_initialisation import without_initialisation
from torch import nn


def test_threads_that_build_at_once_leave_torch_as_it_was():
    before = nn.init.kaiming_uniform_
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with without_initialisation():
            inside.set()
            go_on.wait(10)

    def second() -> None:
        with without_initialisation():
            pass

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    # Time enough for the second one to begin, if it could.
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert nn.init.kaiming_uniform_ is before
    assert bool(torch.isfinite(nn.Linear(64, 64).weight).all())
