"""A bounded, thread-safe least-recently-used cache whose size shows in `diagnostics()`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Callable, Generic, Hashable, TypeVar

V = TypeVar("V")
_registry: list[BoundedCache] = []


class BoundedCache(Generic[V]):
    """Maps hashable keys to values, drops the least recently used beyond `limit`.

    A factory runs under the cache's lock, so a value that is slow to make (a compiled shader) is made once
    however many threads ask for it.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.RLock()
        _registry.append(self)

    def get(self, key: Hashable, factory: Callable[[], V]) -> V:
        with self._lock:
            try:
                self._items.move_to_end(key)
                return self._items[key]
            except KeyError:
                value = factory()
                self.put(key, value)
                return value

    def find(self, key: Hashable) -> V | None:
        """The value if it is there, without a lock and without marking it as used."""
        return self._items.get(key)

    def put(self, key: Hashable, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self.limit:
                self._items.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


def cache_sizes() -> dict[str, dict[str, int]]:
    """Size and limit of every cache by name."""
    return {cache.name: {"size": len(cache), "limit": cache.limit} for cache in _registry}


def clear_caches() -> None:
    """Empties every cache: compiled shaders, tables, verdicts."""
    for cache in _registry:
        cache.clear()
