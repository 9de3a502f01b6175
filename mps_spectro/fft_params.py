"""Sizes and windows of a transform as its kernels take them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _window_functions, _windows
from ._arguments import ArgumentError, _sizes, flag, integer
from .typing import WindowFunction


def resolve_fft_params(
    n_fft: int, hop_length: int | None = None, win_length: int | None = None, pad: int = 0
) -> tuple[int, int, int]:
    """Sizes of a zero-padded transform: (n_fft + 2 * pad, hop_length, win_length).

    Args:
        n_fft: size before padding, in samples.
        hop_length: samples between frames; default n_fft // 4.
        win_length: samples of the window; default n_fft.
        pad: zeros at each end of a frame.

    Raises:
        TypeError: not an int.
        ValueError: n_fft, hop_length or win_length below 1, pad below 0, win_length above n_fft + 2 * pad.
    """
    if integer("n_fft", n_fft) <= 0:
        raise ArgumentError(f"n_fft must be positive, got {n_fft}")
    if integer("pad", pad) < 0:
        raise ArgumentError(f"pad must be at least 0, got {pad}")
    _, hop_length, _ = _sizes(n_fft, hop_length, None)
    return _sizes(n_fft + 2 * pad, hop_length, n_fft if win_length is None else win_length)


def make_window(
    window: Tensor | None = None,
    window_fn: WindowFunction | str = "hann",
    win_length: int | None = None,
    n_fft: int | None = None,
    periodic: bool = True,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """A window centred in n_fft samples by zeros, as `torch.stft` centres it.

    Args:
        window: 1-D of win_length or n_fft samples, in place of `window_fn`.
        window_fn: a function of win_length, periodic=, dtype= and device= (or of win_length alone), or a name: "hann",
            "hamming", "rect" ("boxcar", "ones"), or any in torch.signal.windows.
        win_length: samples of the window; default n_fft.
        n_fft: samples of the result; default win_length.
        periodic: False for a symmetric window.
        dtype: of the result.
        device: of the result; default that of `window`, else the CPU.

    Returns:
        (n_fft,), a tensor of its own.

    Raises:
        TypeError: an argument of the wrong kind, a window that is not real and floating point.
        ValueError: an unknown name, a length that does not fit.
    """
    if n_fft is None and win_length is None:
        raise ArgumentError("n_fft or win_length must be given")
    n_fft, _, win_length = _sizes(win_length if n_fft is None else n_fft, 1, win_length)  # type: ignore[arg-type]
    flag("periodic", periodic)
    if window is None:
        made = _window_functions.make_window(window_fn, win_length, periodic, dtype, "cpu")
        return _windows.full_size(made, n_fft).to(device or "cpu", copy=True)
    if not isinstance(window, Tensor):
        raise TypeError(f"window must be a torch.Tensor, got {type(window).__name__}; names go to window_fn")
    if not window.is_floating_point():
        raise TypeError(f"window must be real and floating point, got {window.dtype}")
    if window.dim() != 1 or window.shape[0] not in (win_length, n_fft):
        raise ArgumentError(
            f"window length must be win_length={win_length} or n_fft={n_fft}, got shape {tuple(window.shape)}"
        )
    return _windows.full_size(window, n_fft).to(device or window.device, dtype, copy=True)
