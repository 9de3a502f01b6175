"""Tensors that a few numbers decide: made once, shared by all who need them, the same for all calls of a graph."""

from __future__ import annotations

import threading
from typing import Any, Callable, Hashable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ._cache import BoundedCache
from ._coverage import tracing_reason


class _Held:
    """Tensors as attributes: what the compiler reads here is an input of its graph, the same object at every call.

    A graph whose tensor had to make room is compiled again when it is called.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[Hashable, str] = {}
        self._next = 0
        self._lock = threading.Lock()

    def name(self, key: Hashable, make: Callable[[], Tensor]) -> str:
        with self._lock:
            if key not in self._names:
                if len(self._names) == self._limit:
                    delattr(self, self._names.pop(next(iter(self._names))))
                self._names[key] = f"tensor_{self._next}"
                self._next += 1
                setattr(self, self._names[key], make())
            return self._names[key]


_held = _Held(256)


def shared(name: str, limit: int = 64) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Keeps what a function of hashable arguments makes: the same tensor again, which nobody may write to.

    Kernels know a bank by its identity, so a compiled graph must not make it anew. What other tracers record does.
    """
    cache: BoundedCache[Tensor] = BoundedCache(name, limit)

    def decorate(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make(*arguments: Hashable) -> Tensor:
            # neither an inference tensor nor one that belongs to a transform or a tracer must reach a later call
            with torch.inference_mode(False), torch.no_grad(), torch._C._DisableFuncTorch(), _disable_current_modes():
                return build(*arguments)

        def kept(*arguments: Hashable) -> Tensor:
            return cache.get(arguments, lambda: make(*arguments))

        @torch.compiler.assume_constant_result
        def held(*arguments: Hashable) -> str:
            return _held.name((name, arguments), lambda: kept(*arguments))

        def get(*arguments: Hashable) -> Tensor:
            if torch.compiler.is_dynamo_compiling() and tracing_reason() is None:
                return getattr(_held, held(*[_literal(argument) for argument in arguments]))
            return build(*arguments) if recorded() else kept(*arguments)

        return get

    return decorate


def _literal(value: Any) -> Any:
    """The value; of a number for which the compiler has a symbol that number, so that the graph holds for no other."""
    if isinstance(value, (int, float)):
        (value,) = {value}
    return value


def recorded() -> bool:
    """Whether a tracer records what happens, so that there are no values to look at."""
    return torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack() > 0
