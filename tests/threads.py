"""Runs one piece of work in many threads at once."""

from __future__ import annotations

import threading
from typing import Callable


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """`work(number)` for every number below `count`, each in a thread of its own, all begun together."""
    start, failures = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
