"""Compilation only for shapes that come again: what is asked for once is not worth its cost."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Callable, Generic, Iterable, TypeVar

from ._arguments import ArgumentError, integer
from ._cache import BoundedCache

V = TypeVar("V")
Shape = tuple[int, ...]


class RepeatedShapeCompileCache(Generic[V]):
    """Makes a value for a shape (a compiled function, usually) once that shape has been asked for often enough.

    Signals of every length pass through most programs, a few lengths again and again. This counts what is asked for
    and calls the factory for what repeats, so that the others run uncompiled:

        cache = RepeatedShapeCompileCache(lambda shape: torch.compile(model, dynamic=False))

        def run(x):
            return (cache.get(x.shape) or model)(x)

    Of compiled shapes and of counted ones the least recently asked for are dropped first. Any number of threads may
    ask: one of them calls the factory for a shape while all others wait. If it raises, so does `get`, and the next
    `get` calls it again.

    Args:
        compile_factory: function of a shape, a tuple of ints.
        min_hits: how many times a shape must be asked for, the last of which gets the value.
        max_compiled_shapes: values to keep.
        max_pending_shapes: shapes to count that have none; default the larger of 16 and 4 * max_compiled_shapes.

    Raises:
        TypeError: compile_factory cannot be called, a count is no int.
        ValueError: a count below 1.
    """

    def __init__(
        self,
        compile_factory: Callable[[Shape], V],
        *,
        min_hits: int = 2,
        max_compiled_shapes: int = 8,
        max_pending_shapes: int | None = None,
    ) -> None:
        if not callable(compile_factory):
            raise TypeError(f"compile_factory must be a function of a shape, got {type(compile_factory).__name__}")
        self._factory = compile_factory
        self._min_hits = _count("min_hits", min_hits)
        compiled = _count("max_compiled_shapes", max_compiled_shapes)
        pending = max(16, 4 * compiled) if max_pending_shapes is None else max_pending_shapes
        self._max_pending = _count("max_pending_shapes", pending)
        self._compiled: BoundedCache[V] = BoundedCache("compiled shapes", compiled)
        self._pending: OrderedDict[Shape, int] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, shape: Iterable[int]) -> V | None:
        """The value for this shape, or None until it has been asked for `min_hits` times.

        Raises:
            TypeError: the shape holds something else than ints.
        """
        key = tuple(int(integer("shape", size)) for size in shape)
        with self._lock:
            if key not in self._compiled:
                asked = self._pending.pop(key, 0) + 1
                self._pending[key] = asked
                if len(self._pending) > self._max_pending:
                    self._pending.popitem(last=False)
                if asked < self._min_hits:
                    self._compiled.misses += 1
                    return None
            # if the factory raises, the shape keeps its count
            value = self._compiled.get(key, lambda: self._factory(key))
            self._pending.pop(key, None)
            return value

    def clear(self) -> None:
        """Forgets values and counts."""
        with self._lock:
            self._compiled.clear()
            self._pending.clear()

    def cache_info(self) -> dict[str, Any]:
        """`min_hits`, `max_compiled_shapes`, `max_pending_shapes`, `pending_shapes` and `compiled_shapes` (how many
        there are), `compiled_shape_keys` (the least recently asked for first), `hits` and `misses` of `get`."""
        with self._lock:
            keys = self._compiled.keys()
            return {
                "min_hits": self._min_hits,
                "max_compiled_shapes": self._compiled.limit,
                "max_pending_shapes": self._max_pending,
                "pending_shapes": len(self._pending),
                "compiled_shapes": len(keys),
                "compiled_shape_keys": keys,
                "hits": self._compiled.hits,
                "misses": self._compiled.misses,
            }


def _count(name: str, value: int) -> int:
    if integer(name, value) < 1:
        raise ArgumentError(f"{name} must be at least 1, got {value}")
    return int(value)
