"""RepeatedShapeCompileCache, and the counts of caches in diagnostics()."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
import torch
from graphs import counting
from threads import in_threads

from mps_spectro import RepeatedShapeCompileCache, diagnostics
from mps_spectro._cache import BoundedCache, clear_caches


class Factory:
    """Makes a new object for each call and remembers what it was called with."""

    def __init__(self, fails: int = 0, seconds: float = 0.0) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.fails = fails
        self.seconds = seconds

    def __call__(self, shape: tuple[int, ...]) -> object:
        self.shapes.append(shape)
        time.sleep(self.seconds)
        if len(self.shapes) <= self.fails:
            raise RuntimeError("not this time")
        return object()


def test_promotes_at_the_second_ask_and_keeps_the_value() -> None:
    factory = Factory()
    cache = RepeatedShapeCompileCache(factory)
    assert cache.get((2, 3)) is None
    value = cache.get(torch.Size([2, 3]))
    assert value is not None and cache.get([2, 3]) is value
    assert factory.shapes == [(2, 3)] and type(factory.shapes[0]) is tuple
    assert cache.cache_info() == {
        "min_hits": 2,
        "max_compiled_shapes": 8,
        "max_pending_shapes": 32,
        "pending_shapes": 0,
        "compiled_shapes": 1,
        "compiled_shape_keys": [(2, 3)],
        "hits": 1,
        "misses": 2,
    }


def test_keeps_the_shapes_asked_for_last() -> None:
    factory = Factory()
    cache = RepeatedShapeCompileCache(factory, min_hits=1, max_compiled_shapes=2)
    first = cache.get((1,))
    cache.get((2,))
    assert cache.get((1,)) is first
    cache.get((3,))
    assert cache.cache_info()["compiled_shape_keys"] == [(1,), (3,)]
    assert cache.get((1,)) is first and factory.shapes == [(1,), (2,), (3,)]
    cache.get((2,))
    assert factory.shapes[-1] == (2,) and cache.cache_info()["compiled_shape_keys"] == [(1,), (2,)]


def test_counts_a_bounded_number_of_shapes() -> None:
    factory = Factory()
    cache = RepeatedShapeCompileCache(factory, max_pending_shapes=2)
    for size in (1, 2, 1):
        cache.get((size,))
    assert factory.shapes == [(1,)]
    for size in (3, 4):  # 2 is forgotten
        assert cache.get((size,)) is None
    assert cache.cache_info()["pending_shapes"] == 2
    assert cache.get((2,)) is None and cache.get((4,)) is not None
    assert cache.cache_info()["pending_shapes"] == 1


def test_default_number_of_counted_shapes() -> None:
    for compiled, pending in ((1, 16), (4, 16), (5, 20)):
        cache = RepeatedShapeCompileCache(Factory(), max_compiled_shapes=compiled)
        assert cache.cache_info()["max_pending_shapes"] == pending


def test_clear() -> None:
    factory = Factory()
    cache = RepeatedShapeCompileCache(factory, min_hits=2)
    for size in (1, 1, 2):
        cache.get((size,))
    cache.clear()
    info = cache.cache_info()
    assert (info["pending_shapes"], info["compiled_shapes"], info["compiled_shape_keys"]) == (0, 0, [])
    assert cache.get((2,)) is None and cache.get((1,)) is None


@pytest.mark.parametrize("name", ["min_hits", "max_compiled_shapes", "max_pending_shapes"])
@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (-3, ValueError), (1.0, TypeError), (True, TypeError)])
def test_bad_counts(name: str, value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=name):
        RepeatedShapeCompileCache(Factory(), **{name: value})


def test_bad_factory_and_shape() -> None:
    with pytest.raises(TypeError, match="compile_factory"):
        RepeatedShapeCompileCache(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="shape"):
        RepeatedShapeCompileCache(Factory()).get((2.0,))  # type: ignore[arg-type]


def test_a_factory_that_fails_is_called_again() -> None:
    factory = Factory(fails=1)
    cache = RepeatedShapeCompileCache(factory, max_pending_shapes=1)
    assert cache.get((5,)) is None
    with pytest.raises(RuntimeError, match="not this time"):
        cache.get((5,))
    assert cache.cache_info()["compiled_shapes"] == 0
    assert cache.get((5,)) is not None and factory.shapes == [(5,), (5,)]


def test_the_factory_may_ask_the_cache() -> None:
    cache: RepeatedShapeCompileCache[Any]
    cache = RepeatedShapeCompileCache(lambda shape: (shape, cache.get(shape[:-1])) if shape else "end", min_hits=1)
    assert cache.get((2, 3)) == ((2, 3), ((2,), "end"))


def test_one_call_of_the_factory_for_each_shape_under_a_race() -> None:
    factory = Factory(seconds=0.01)
    cache = RepeatedShapeCompileCache(factory, min_hits=2)
    got: list[tuple[int, Any]] = []

    def work(number: int) -> None:
        for _ in range(20):
            size = number % 4
            got.append((size, cache.get((size,))))

    in_threads(16, work)
    assert sorted(factory.shapes) == [(0,), (1,), (2,), (3,)]
    for size in range(4):
        values = {id(value) for asked, value in got if asked == size and value is not None}
        assert len(values) == 1
        assert sum(value is None for asked, value in got if asked == size) == 1


def test_with_torch_compile() -> None:
    graphs, backend = counting()

    def model(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1

    cache = RepeatedShapeCompileCache(lambda shape: torch.compile(model, backend=backend, dynamic=False))
    for size in (3, 4, 3, 5, 3):
        x = torch.randn(size)
        assert torch.equal((cache.get(x.shape) or model)(x), model(x))
    assert len(graphs) == 1


# --- counts in diagnostics() ------------------------------------------------------------------------------------------


def test_counts_of_all_caches_of_a_name_are_added_up_and_reset() -> None:
    gc.collect()  # those of other tests
    diagnostics(reset=True)
    caches = [RepeatedShapeCompileCache(Factory(), max_compiled_shapes=3) for _ in range(2)]
    before = diagnostics()["caches"]["compiled shapes"]
    for cache in caches:
        for size in (1, 1, 1):
            cache.get((size,))
    after = diagnostics(reset=True)["caches"]["compiled shapes"]
    grown = {field: after[field] - before[field] for field in after}
    assert grown == {"size": 2, "limit": 0, "hits": 2, "misses": 4}
    now = diagnostics()["caches"]["compiled shapes"]
    assert (now["size"], now["hits"], now["misses"]) == (after["size"], 0, 0)
    del cache, caches
    gc.collect()
    assert diagnostics()["caches"].get("compiled shapes", {"limit": 0})["limit"] == before["limit"] - 6


def test_bounded_cache_counts_and_forgets() -> None:
    cache: BoundedCache[int] = BoundedCache("counted", 2)
    assert [cache.get(key, lambda: 7) for key in "aab"] == [7, 7, 7]
    assert cache.find("a") == 7 and cache.find("z") is None
    assert diagnostics()["caches"]["counted"] == {"size": 2, "limit": 2, "hits": 2, "misses": 3}
    assert cache.keys() == ["a", "b"] and "a" in cache and "z" not in cache
    clear_caches()
    assert diagnostics()["caches"]["counted"]["size"] == 0
    del cache
    gc.collect()
    assert "counted" not in diagnostics()["caches"]
