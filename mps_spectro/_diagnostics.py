"""Counters that say which route each call took."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from ._cache import cache_report, forget_counts

_lock = threading.Lock()
_kernel_calls: Counter[str] = Counter()
_torch_route: Counter[str] = Counter()
_backend_calls: Counter[str] = Counter()
_compiles: dict[str, float] = {"count": 0, "seconds": 0.0}


def count_kernel(op: str, backend: str) -> None:
    """One launch of the kernel of `op` on `backend`."""
    with _lock:
        _kernel_calls[op] += 1
        _backend_calls[backend] += 1


def count_torch_route(reason: str) -> None:
    """One call that plain torch answered, and why."""
    with _lock:
        _torch_route[reason] += 1
        _backend_calls["torch"] += 1


def count_compile(seconds: float) -> None:
    """One shader compilation and how long it took."""
    with _lock:
        _compiles["count"] += 1
        _compiles["seconds"] += seconds


def diagnostics(reset: bool = False) -> dict[str, Any]:
    """Counts of what this process has run since the start or the last reset.

    Args:
        reset: set the counters to zero after reading them; what the caches hold is kept.

    Returns:
        `kernel_calls` {op name: launches}, `torch_route` {reason: calls}, `backend_calls` {backend: calls},
        `compiles` {"count", "seconds"}, `caches` {name: {"size", "limit", "hits", "misses"}}, where caches of one name
        (each transform has one for what it has compiled) are added up.
    """
    with _lock:
        report = {
            "kernel_calls": dict(_kernel_calls),
            "torch_route": dict(_torch_route),
            "backend_calls": dict(_backend_calls),
            "compiles": {"count": int(_compiles["count"]), "seconds": _compiles["seconds"]},
            "caches": cache_report(),
        }
        if reset:
            for counter in (_kernel_calls, _torch_route, _backend_calls):
                counter.clear()
            _compiles.update(count=0, seconds=0.0)
            forget_counts()
    return report
