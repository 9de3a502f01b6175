"""Compiled methods of modules: one function per method, options and backend, none in copies."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Callable

import pytest
import torch
from graphs import counting
from threads import in_threads
from torch import Tensor, nn

from mps_spectro._compiled import CompiledMethods


class Scaled(CompiledMethods, nn.Module):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.register_buffer("weight", torch.arange(1.0, size + 1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.power(x)

    def power(self, x: Tensor, *, exponent: int = 1) -> Tensor:
        return (self.weight * x) ** exponent

    def get_compiled_power(self, *, exponent: int) -> Callable[[Tensor], Tensor]:
        return self._compiled_method("power", "aot_eager", exponent=exponent)


def test_same_function_each_time_with_the_values_of_the_module() -> None:
    module = Scaled()
    compiled = module.get_compiled()
    assert compiled is module.get_compiled() is module.get_compiled(backend="aot_eager")
    assert compiled is not module.get_compiled(backend="eager")
    x = torch.randn(2, 3)
    assert torch.equal(compiled(x), module(x))
    square, cube = (module.get_compiled_power(exponent=exponent) for exponent in (2, 3))
    assert square is module.get_compiled_power(exponent=2) and square is not cube
    assert torch.equal(square(x), module(x) ** 2) and torch.equal(cube(x), module(x) ** 3)


def test_the_function_is_really_compiled_and_sees_a_changed_buffer() -> None:
    graphs, backend = counting()
    module = Scaled()
    compiled = module.get_compiled(backend=backend)
    x = torch.randn(2, 3)
    compiled(x)
    assert len(graphs) == 1
    module.weight = module.weight * 2
    assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_begin_without_any(duplicate: Callable[[Scaled], Scaled]) -> None:
    module = Scaled()
    compiled = module.get_compiled(backend="eager")
    other = duplicate(module)
    assert other.get_compiled(backend="eager") is not compiled
    assert module.get_compiled(backend="eager") is compiled
    x = torch.randn(2, 3)
    expected = -module(x)
    other.weight = -other.weight
    assert torch.equal(other.get_compiled(backend="eager")(x), expected)
    assert not module.state_dict()


def test_many_modules_are_all_compiled() -> None:
    graphs, backend = counting()
    limit = torch._dynamo.config.recompile_limit
    modules = [Scaled(size) for size in range(2, 4 + limit)]
    for module in modules:
        x = torch.randn(2, len(module.weight))
        assert torch.equal(module.get_compiled(backend=backend)(x), module(x))
    assert len(graphs) == len(modules) > limit


def test_threads_get_one_function() -> None:
    module, got = Scaled(), []
    in_threads(8, lambda _: got.append(module.get_compiled()))
    assert len(got) == 8 and len(set(map(id, got))) == 1


def test_a_module_is_freed_with_its_functions() -> None:
    module = Scaled()
    module.get_compiled(backend="eager")(torch.randn(3))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
