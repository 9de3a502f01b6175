"""A bounded, thread-safe least-recently-used cache whose size and use show in `diagnostics()`."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Callable, Generic, Hashable, TypeVar

V = TypeVar("V")
# of the caches that live: objects may have caches of their own
_registry: list[weakref.ref[BoundedCache]] = []


class BoundedCache(Generic[V]):
    """Maps hashable keys to values, drops the least recently used beyond `limit`.

    A factory runs under the cache's lock, so a value that is slow to make (a compiled shader) is made once
    however many threads ask for it. `hits` and `misses` count look-ups.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.hits = self.misses = 0
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.RLock()
        _registry.append(weakref.ref(self, _registry.remove))

    def get(self, key: Hashable, factory: Callable[[], V]) -> V:
        with self._lock:
            try:
                self._items.move_to_end(key)
                self.hits += 1
                return self._items[key]
            except KeyError:
                self.misses += 1
                value = factory()
                self.put(key, value)
                return value

    def find(self, key: Hashable) -> V | None:
        """The value if it is there, without a lock (threads may lose a count) and without marking it as used."""
        value = self._items.get(key)
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def put(self, key: Hashable, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self.limit:
                self._items.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._items.clear()

    def keys(self) -> list[Hashable]:
        """The keys, the least recently used first."""
        with self._lock:
            return list(self._items)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)


def _living() -> list[BoundedCache]:
    return [cache for reference in list(_registry) if (cache := reference()) is not None]


def cache_report() -> dict[str, dict[str, int]]:
    """Size, limit, hits and misses by name, summed over the caches of that name."""
    report: dict[str, dict[str, int]] = {}
    for cache in _living():
        entry = report.setdefault(cache.name, {"size": 0, "limit": 0, "hits": 0, "misses": 0})
        for field, count in zip(entry, (len(cache), cache.limit, cache.hits, cache.misses)):
            entry[field] += count
    return report


def forget_counts() -> None:
    """Sets hits and misses of every cache to zero."""
    for cache in _living():
        cache.hits = cache.misses = 0


def clear_caches() -> None:
    """Empties every cache: compiled shaders, tables, verdicts."""
    for cache in _living():
        cache.clear()
