"""Which calls of torch.stft and torch.istft the patch may answer with our ops, and what those need.

A call that torch would refuse, or compute in another dtype, is never eligible: torch's own function answers it.
"""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _kernels, _windows
from ._coverage import torch_reason
from ._envelope import nola_holds
from .istft import inverse
from .stft import transform

_OTHER = "arguments that torch refuses or the kernels do not take"
_HALVES = (torch.float16, torch.bfloat16)


class Forward(NamedTuple):
    """An eligible call of torch.stft; the fields are `transform`'s arguments but for the missing window."""

    window: Tensor | None
    n_fft: int
    win_length: int
    hop_length: int
    offset: int
    pad_mode: str
    n_frames: int
    normalized: bool
    onesided: bool
    return_complex: bool

    def run(self, input: Tensor) -> Tensor:
        if self.window is None:
            window = _windows.rectangular(self.win_length, self.n_fft, input.dtype, input.device)
        else:
            window = _windows.full_size(self.window, self.n_fft)
        out = transform(input if input.dim() == 2 else input.unsqueeze(0), window, *self[3:])
        return out if input.dim() == 2 else out.squeeze(0)


class Inverse(NamedTuple):
    """An eligible call of torch.istft."""

    window: Tensor
    n_fft: int
    hop_length: int
    offset: int
    length: int
    normalized: bool
    too_long: bool

    def run(self, input: Tensor) -> Tensor:
        spectrum = input if input.dim() == 3 else input.unsqueeze(0)
        spectrum = spectrum[:, : self.n_fft // 2 + 1]
        out = inverse(spectrum, *self[:6])
        return out if input.dim() == 3 else out.squeeze(0)


def _integers(*values: Any) -> list[int] | None:
    """The values as ints, or None when torch would not take them all for ints."""
    found = []
    for value in values:
        if type(value) is not int:
            if isinstance(value, bool) or not isinstance(value, (numbers.Integral, torch.SymInt)):
                return None
            value = value if isinstance(value, torch.SymInt) else int(value)
        found.append(value)
    return found


def _sizes(n_fft: Any, hop_length: Any, win_length: Any) -> tuple[int, int, int] | None:
    """n_fft, hop_length and win_length with torch's defaults, or None when torch would refuse them."""
    sizes = _integers(n_fft, 0 if hop_length is None else hop_length, 1 if win_length is None else win_length)
    if sizes is None:
        return None
    n_fft, hop, win = sizes
    hop = n_fft // 4 if hop_length is None else hop
    win = n_fft if win_length is None else win
    return (n_fft, hop, win) if hop > 0 and 0 < win <= n_fft else None


def _symbolic(tensor: Tensor) -> bool:
    """Whether this is a tensor of a tracer: our ops have shape functions for it, but it has no values."""
    return type(tensor).__module__ in ("torch._subclasses.fake_tensor", "torch._subclasses.functional_tensor")


def _plain(tensor: Any, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether our ops know what to do with this tensor; subclasses that rule over dispatch know better themselves."""
    return (
        isinstance(tensor, Tensor)
        and (type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__ or _symbolic(tensor))
        and tensor.dtype in dtypes
        and tensor.layout is torch.strided
        and not tensor.is_nested
    )


def _reason(tensor: Tensor, n_fft: int, hop_length: int) -> str | None:
    """Why torch answers a call whose arguments are in order, or None."""
    reason = torch_reason(tensor.device.type)
    if reason is not None:
        return reason
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    if torch.compiler.is_compiling():
        return None
    return _kernels.refusal(torch.float32, n_fft, hop_length)


def plan_stft(
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
) -> Forward | str:
    """What our op needs to answer this call of torch.stft, or why torch has to."""
    if not _plain(input, (torch.float32,)):
        return f"{input.dtype} signal" if isinstance(input, Tensor) else _OTHER
    sizes = _sizes(n_fft, hop_length, win_length)
    if sizes is None or type(center) is not bool or type(normalized) is not bool:
        return _OTHER
    n_fft, hop, win = sizes
    reason = _reason(input, n_fft, hop)
    if reason is not None:
        return reason
    if input.dim() not in (1, 2) or input.numel() == 0:
        return _OTHER
    if type(return_complex) is not bool or (onesided is not None and type(onesided) is not bool):
        return _OTHER
    if window is not None and not (
        _plain(window, (torch.float32, *_HALVES)) and window.device == input.device and window.shape == (win,)
    ):
        return "window in another dtype" if isinstance(window, Tensor) and window.shape == (win,) else _OTHER
    length = input.shape[-1]
    pad = n_fft // 2
    if center:
        least = {"constant": 0, "reflect": pad + 1, "replicate": 1, "circular": pad}.get(pad_mode)
        if least is None or length < least or align_to_window is not None or length + 2 * pad < n_fft:
            return _OTHER
    else:
        if length < n_fft or (align_to_window is not None and type(align_to_window) is not bool):
            return _OTHER
        pad_mode = "constant"
        pad = (n_fft - win) // 2 if align_to_window else 0
        if align_to_window and (n_fft - win) % 2 and (length - win) % hop == 0:
            return _OTHER  # torch counts one frame more than fits
    n_frames = 1 + (length + 2 * pad - n_fft) // hop
    return Forward(window, n_fft, win, hop, pad, pad_mode, n_frames, normalized, onesided is not False, return_complex)


def plan_istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    normalized: bool,
    onesided: bool | None,
    length: int | None,
    return_complex: bool,
) -> Inverse | str:
    """What our op needs to answer this call of torch.istft, or why torch has to."""
    if not _plain(input, (torch.complex64,)):
        return f"{input.dtype} spectrum" if isinstance(input, Tensor) else _OTHER
    sizes = _sizes(n_fft, hop_length, win_length)
    if sizes is None or type(center) is not bool or type(normalized) is not bool:
        return _OTHER
    n_fft, hop, win = sizes
    reason = _reason(input, n_fft, hop)
    if reason is not None:
        return reason
    if input.dim() not in (2, 3) or input.numel() == 0 or hop > win:
        return _OTHER
    if return_complex is not False:
        return "complex signal" if return_complex is True else _OTHER
    if onesided is not None and type(onesided) is not bool:
        return _OTHER
    bins, n_frames = input.shape[-2], input.shape[-1]
    if bins != (n_fft // 2 + 1 if (bins != n_fft if onesided is None else onesided) else n_fft):
        return _OTHER
    if window is not None and not (
        _plain(window, (torch.float32,)) and window.device == input.device and window.shape == (win,)
    ):
        return "window in another dtype" if isinstance(window, Tensor) and window.shape == (win,) else _OTHER
    full = n_fft + hop * (n_frames - 1)
    offset = n_fft // 2 if center else 0
    if length is None:
        length = full - 2 * offset if n_fft > 1 else (0 if center else full)
    else:
        wanted = _integers(length)
        if wanted is None:
            return _OTHER
        length = wanted[0]
    if length <= 0:
        return _OTHER
    if torch._C._are_functorch_transforms_active() and window is not None:
        return "window inside a functorch transform"
    if window is None:
        window = _windows.rectangular(win, win, torch.float32, input.device)
    if not _symbolic(window) and not nola_holds(window, n_fft, hop, n_frames, offset, offset + length):
        return "window envelope below 1e-11"
    return Inverse(window, n_fft, hop, offset, length, normalized, offset + length > full)
