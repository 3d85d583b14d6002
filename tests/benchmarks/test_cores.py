"""Nodes and load on cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from roadside.benchmarks.cores import cpu_s, divided_cores, keep_started, kept_to

needs_cores = pytest.mark.skipif(divided_cores() is None, reason="one core, or a system that keeps nobody to cores")
THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); print(flush=True)"


@needs_cores
def test_no_core_is_in_both_halves():
    divided = divided_cores()
    assert divided is not None
    assert not set(divided.nodes) & set(divided.load)
    assert {*divided.nodes, *divided.load} == os.sched_getaffinity(0)


@needs_cores
def test_what_is_started_goes_to_the_cores_of_the_load_but_for_the_nodes():
    divided, before = divided_cores(), os.sched_getaffinity(0)
    assert divided is not None
    command = [sys.executable, "-c", THREADED]
    with kept_to(divided.load):
        node = subprocess.Popen(command, stdout=subprocess.PIPE)
        keep_started(node.pid, divided.nodes)
        vehicle = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        for process, cores in ((node, divided.nodes), (vehicle, divided.load)):
            assert process.stdout is not None
            process.stdout.readline()
            threads = psutil.Process(process.pid).threads()
            assert len(threads) == 2
            assert all(os.sched_getaffinity(thread.id) == set(cores) for thread in threads)
        assert cpu_s(node.pid) > 0
    finally:
        for process in (node, vehicle):
            process.kill()
            process.communicate()
    assert os.sched_getaffinity(0) == before
