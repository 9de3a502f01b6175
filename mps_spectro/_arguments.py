"""Checks the arguments of the direct calls and works out the sizes that follow from them."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._reference import PAD_MODES

SAFETY = ("auto", "always", "off")
KERNEL_DTYPES = ("float32", "float16", "mixed")
KERNEL_LAYOUTS = ("auto", "native", "transposed")
LONG_MODE_STRATEGIES = ("custom", "torch_fallback")

HALVES = (torch.float16, torch.bfloat16)
_SIGNALS = (*HALVES, torch.float32, torch.float64, torch.complex64, torch.complex128)
_SPECTRA = (torch.complex32, torch.complex64, torch.complex128)


class ArgumentError(ValueError, RuntimeError):
    """An argument has a value that the call cannot work with.

    A ValueError, and a RuntimeError as well, because that is what torch.stft and torch.istft raise.
    """


class StftCall(NamedTuple):
    """A checked call of `stft`: the signal as (B, T) and every size the transform needs."""

    signal: Tensor
    window: Tensor | None
    n_fft: int
    hop_length: int
    win_length: int
    center: bool
    pad_mode: str
    normalized: bool
    onesided: bool
    return_complex: bool
    align_to_window: bool
    offset: int
    n_frames: int


class IstftCall(NamedTuple):
    """A checked call of `istft`: the spectrum as (B, F, N) and every size the transform needs."""

    spectrum: Tensor
    window: Tensor | None
    n_fft: int
    hop_length: int
    win_length: int
    center: bool
    normalized: bool
    onesided: bool
    return_complex: bool
    offset: int
    length: int
    available: int


def integer(name: str, value: Any) -> int:
    """The value as an int.

    Raises:
        TypeError: not an integer (a bool is none either).
    """
    if isinstance(value, bool) or not isinstance(value, (numbers.Integral, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    return value if isinstance(value, torch.SymInt) else int(value)  # type: ignore[return-value]


def flag(name: str, value: Any) -> bool:
    """The value, if it is a bool.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """The value, if it is one of the allowed names.

    Raises:
        ArgumentError: anything else.
    """
    if value not in allowed:
        raise ArgumentError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.is_nested:
        raise TypeError(f"{name} must not be a nested tensor; use torch.nested.to_padded_tensor")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}; use {name}.to_dense()")
    return value


def _sizes(n_fft: int, hop_length: int | None, win_length: int | None) -> tuple[int, int, int]:
    n_fft = integer("n_fft", n_fft)
    if n_fft <= 0:
        raise ArgumentError(f"n_fft must be positive, got {n_fft}")
    win_length = n_fft if win_length is None else integer("win_length", win_length)
    if not 0 < win_length <= n_fft:
        raise ArgumentError(f"win_length must be in 1 .. n_fft={n_fft}, got {win_length}")
    if hop_length is None:
        hop_length = n_fft // 4
        if hop_length == 0:
            raise ArgumentError(f"hop_length must be given when n_fft={n_fft}: its default n_fft // 4 is 0")
    hop_length = integer("hop_length", hop_length)
    if hop_length <= 0:
        raise ArgumentError(f"hop_length must be positive, got {hop_length}")
    return n_fft, hop_length, win_length


def _checked_window(window: Tensor | None, input: Tensor, win_length: int) -> Tensor | None:
    if window is None:
        return None
    _tensor("window", window)
    if window.device != input.device:
        raise ArgumentError(
            f"window must be on the input's device {input.device}, got {window.device}; use window.to(input.device)"
        )
    if window.dim() != 1 or window.shape[0] != win_length:
        raise ArgumentError(f"window must have shape (win_length={win_length},), got {tuple(window.shape)}")
    return window


def _check_batch(input: Tensor, lead: int) -> None:
    if 0 in input.shape[:lead]:
        raise ArgumentError(f"input must not have an empty batch, got shape {tuple(input.shape)}")


def check_padding(length: int, n_fft: int, pad_mode: str) -> None:
    """Refuses a signal too short to be padded by n_fft // 2 at each end.

    Raises:
        ArgumentError: too short for this mode.
    """
    pad = n_fft // 2
    least = {"reflect": pad + 1, "circular": pad, "replicate": 1}.get(pad_mode, 0)
    if length < least and pad:
        raise ArgumentError(
            f"input must have at least {least} samples for n_fft={n_fft} with center=True and "
            f"pad_mode={pad_mode!r}, got {length}; pad_mode='constant' takes any length"
        )


def stft_call(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    pad_mode: str,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
) -> StftCall:
    """Checks the arguments of `stft` and flattens the leading dimensions.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ArgumentError: a value or a size that does not fit.
    """
    _tensor("input", input)
    if input.dtype not in _SIGNALS:
        raise TypeError(f"input must be floating point or complex, got {input.dtype}")
    if input.dim() == 0:
        raise ArgumentError("input must have shape (..., T), got a 0-dimensional tensor")
    n_fft, hop_length, win_length = _sizes(n_fft, hop_length, win_length)
    choice("pad_mode", pad_mode, PAD_MODES)
    flag("center", center)
    flag("normalized", normalized)
    if return_complex is None:
        return_complex = True
    flag("return_complex", return_complex)
    if align_to_window is not None:
        flag("align_to_window", align_to_window)
        if center:
            raise ArgumentError(f"align_to_window must be None when center=True, got {align_to_window}")
    window = _checked_window(window, input, win_length)
    two_sided = input.is_complex() or (window is not None and window.is_complex())
    if onesided is None:
        onesided = not two_sided
    elif flag("onesided", onesided) and two_sided:
        raise ArgumentError("onesided must be None or False when input or window is complex, got True")
    _check_batch(input, input.dim() - 1)
    length = input.shape[-1]
    offset = 0
    if center:
        check_padding(length, n_fft, pad_mode)
        offset = n_fft // 2
    elif length < n_fft:
        raise ArgumentError(f"input must have at least n_fft={n_fft} samples with center=False, got {length}")
    elif align_to_window:
        offset = (n_fft - win_length) // 2
    padded = length + 2 * offset
    if padded < n_fft:  # an odd n_fft and no samples at all
        raise ArgumentError(f"input must have at least {n_fft - 2 * offset} samples for n_fft={n_fft}, got {length}")
    if input.dtype in HALVES:
        input = input.float()
    return StftCall(
        signal=input.reshape(math.prod(input.shape[:-1]), length) if input.dim() != 2 else input,
        window=window,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        center=center,
        pad_mode=pad_mode if center else "constant",
        normalized=normalized,
        onesided=onesided,
        return_complex=return_complex,
        align_to_window=bool(align_to_window),
        offset=offset,
        n_frames=1 + (padded - n_fft) // hop_length,
    )


def istft_call(
    input: Tensor,
    n_fft: int | None,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    normalized: bool,
    onesided: bool | None,
    length: int | None,
    return_complex: bool,
) -> IstftCall:
    """Checks the arguments of `istft` and flattens the leading dimensions.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ArgumentError: a value or a size that does not fit.
    """
    _tensor("input", input)
    if input.dtype not in _SPECTRA:
        raise TypeError(f"input must be complex, got {input.dtype}; torch.view_as_complex takes (..., 2) pairs")
    if input.dim() < 2:
        raise ArgumentError(f"input must have shape (..., F, N), got {tuple(input.shape)}")
    _check_batch(input, input.dim() - 2)
    bins, n_frames = input.shape[-2], input.shape[-1]
    if bins == 0 or n_frames == 0:
        raise ArgumentError(f"input must have at least one bin and one frame, got shape {tuple(input.shape)}")
    if onesided is not None:
        flag("onesided", onesided)
    if n_fft is None:
        n_fft = bins if onesided is False else 2 * (bins - 1)
        if n_fft == 0:
            raise ArgumentError(f"n_fft must be given for a spectrum of {bins} bin")
    n_fft, hop_length, win_length = _sizes(n_fft, hop_length, win_length)
    if hop_length > win_length:
        raise ArgumentError(f"hop_length must not exceed win_length={win_length} in istft, got {hop_length}")
    if onesided is None:
        onesided = bins != n_fft
    expected = n_fft // 2 + 1 if onesided else n_fft
    if bins != expected:
        raise ArgumentError(
            f"input must have {expected} bins for n_fft={n_fft} and onesided={onesided}, got {bins} "
            f"(shape {tuple(input.shape)})"
        )
    flag("center", center)
    flag("normalized", normalized)
    window = _checked_window(window, input, win_length)
    if flag("return_complex", return_complex) and onesided:
        raise ArgumentError("return_complex must be False for a one-sided spectrum, got True")
    if window is not None and window.is_complex() and not return_complex:
        raise ArgumentError("window must be real unless return_complex=True, got a complex window")
    full = n_fft + hop_length * (n_frames - 1)
    offset = n_fft // 2 if center else 0
    if length is None:
        length = full - 2 * offset
        if length <= 0:
            raise ArgumentError(f"input must have more than one frame with center=True and no length, got {n_frames}")
    elif integer("length", length) <= 0:
        raise ArgumentError(f"length must be positive, got {length}")
    if input.dtype == torch.complex32:
        input = input.to(torch.complex64)
    return IstftCall(
        spectrum=input.reshape(-1, bins, n_frames) if input.dim() != 3 else input,
        window=window,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        center=center,
        normalized=normalized,
        onesided=onesided,
        return_complex=return_complex,
        offset=offset,
        length=length,
        available=full - offset,
    )
