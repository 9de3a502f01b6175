"""Windows by name or from a function, as the front ends take them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _windows
from ._arguments import ArgumentError, _checked_window
from ._shared import shared
from .typing import WindowFunction, WindowLike

_CACHED = {
    torch.hann_window: "hann",
    torch.hamming_window: "hamming",
    torch.blackman_window: "blackman",
    torch.bartlett_window: "bartlett",
    torch.kaiser_window: "kaiser",
}
_ALIASES = {"rect": "ones", "boxcar": "ones", "rectangular": "ones"}


def make_window(
    function: WindowFunction | str, win_length: int, periodic: bool, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """The window (win_length,) of a name, or of a function that takes win_length and, if it can, periodic= and dtype=.

    Values are computed on the CPU. Those of names and of torch's own functions are kept: nobody may write to them.
    """
    name = function if isinstance(function, str) else _CACHED.get(function)
    if name is None and not isinstance(function, str):
        return _of_function(function, win_length, periodic, dtype).to(device, dtype)
    if name == "hann" and periodic:
        return _windows.hann(win_length, dtype, torch.device(device))
    return _named(name, isinstance(function, str), win_length, periodic, dtype, torch.device(device))


def given_window(window: Tensor, x: Tensor, win_length: int) -> Tensor:
    """A window that the caller gave, once it fits the signal."""
    _checked_window(window, x, win_length)
    if not window.is_floating_point():
        raise TypeError(f"window must be real and floating point, got {window.dtype}")
    return window


def window_for(window: WindowLike, x: Tensor, win_length: int, periodic: bool = True) -> Tensor:
    """The window (win_length,) beside a signal: the one given, or made."""
    if isinstance(window, Tensor):
        return given_window(window, x, win_length)
    return make_window(window, win_length, periodic, x.dtype, x.device)


def stand_in(window: WindowLike) -> Tensor:
    """In place of the signal where a module is made: what it holds is float32 and beside a window that is given."""
    return torch.empty(0, dtype=torch.float32, device=window.device if isinstance(window, Tensor) else "cpu")


@shared("front-end windows")
def _named(
    name: str, by_name: bool, win_length: int, periodic: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if by_name:
        return _of_name(name, win_length, periodic, dtype).to(device)
    return _of_function(getattr(torch, f"{name}_window"), win_length, periodic, dtype).to(device)


def _of_name(name: str, win_length: int, periodic: bool, dtype: torch.dtype) -> Tensor:
    name = _ALIASES.get(name, name)
    if name == "ones":
        return torch.ones(win_length, dtype=dtype, device="cpu")
    if name in ("hann", "hamming"):
        return getattr(torch, f"{name}_window")(win_length, periodic=periodic, dtype=dtype, device="cpu")
    known = torch.signal.windows.__all__
    if name not in known:
        raise ArgumentError(f"window_fn must be a function or one of rect, {', '.join(known)}, got {name!r}")
    return getattr(torch.signal.windows, name)(win_length, sym=not periodic, dtype=dtype, device="cpu")


def _of_function(function: object, win_length: int, periodic: bool, dtype: torch.dtype) -> Tensor:
    if not callable(function):
        raise TypeError(f"window_fn must be a function or a name, got {function!r} ({type(function).__name__})")
    try:
        window = function(win_length, periodic=periodic, dtype=dtype, device="cpu")
    except TypeError:
        window = function(win_length)
    if not isinstance(window, Tensor) or window.shape != (win_length,):
        what = tuple(window.shape) if isinstance(window, Tensor) else type(window).__name__
        raise ArgumentError(f"window_fn must give a tensor of shape (win_length={win_length},), got {what}")
    return window
