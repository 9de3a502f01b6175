"""Values derived from a tensor the user holds, kept for as long as that tensor is what it is.

A value is kept by the identity *and* version of its tensor, so that one that was changed in place, or another one in
recycled memory, is never mistaken for it.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import Callable, Hashable, TypeVar

import torch
from torch import Tensor

from ._cache import BoundedCache

V = TypeVar("V")

_moved: BoundedCache[Tensor] = BoundedCache("moved tables", 128)

# id of a live window -> (weak reference to it, its number)
_numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
_next_number = itertools.count()
_numbers_lock = threading.Lock()


def _number(window: Tensor) -> int:
    """A number that belongs to this tensor alone, also after it is gone and its id has been given to another."""
    identity = id(window)
    entry = _numbers.get(identity)
    if entry is not None and entry[0]() is window:
        return entry[1]

    def forget(dead: weakref.ref[Tensor]) -> None:
        known = _numbers.get(identity)
        if known is not None and known[0] is dead:
            del _numbers[identity]

    with _numbers_lock:
        entry = _numbers.get(identity)
        if entry is None or entry[0]() is not window:
            entry = _numbers[identity] = (weakref.ref(window, forget), next(_next_number))
    return entry[1]


def _key(window: Tensor) -> tuple[Hashable, ...] | None:
    """What a tensor is known by, or None when nothing derived from it may outlive the call."""
    if (
        torch.compiler.is_compiling()
        or type(window) not in (Tensor, torch.nn.Parameter)
        or window.is_inference()  # has no version
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    ):
        return None
    # work on another stream would have to wait for the table
    stream = torch._C._cuda_getCurrentRawStream(window.device.index) if window.is_cuda else 0
    # `window.data = other` changes neither identity nor version
    return _number(window), window._version, window.data_ptr(), window.dtype, stream


class _NotKept(Exception):
    """Carries a value past the cache."""


def capturing(window: Tensor) -> bool:
    return window.is_cuda and torch.cuda.is_current_stream_capturing()


def remember(cache: BoundedCache[V], window: Tensor, build: Callable[..., V], *arguments: Hashable) -> V:
    """build(window, *arguments), kept for as long as the window is what it is."""
    known = _key(window)
    if known is None:
        return build(window, *arguments)

    def build_to_keep() -> V:
        # a tensor made in inference mode could never be saved for a backward pass later
        with torch.inference_mode(False), torch.no_grad():
            value = build(window, *arguments)
        if capturing(window):  # computed when the CUDA graph is replayed, not now
            raise _NotKept(value)
        return value

    try:
        return cache.get((known, arguments), build_to_keep)
    except _NotKept as passing:
        return passing.args[0]


def moved(table: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The table with this dtype, on this device: a copy is made once as long as it does not change."""
    if table.dtype == dtype and table.device == device:
        return table
    return remember(_moved, table, Tensor.to, device, dtype)
