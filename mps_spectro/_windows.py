"""Windows as the ops take them: n_fft values beside the signal; the default ones are made once and kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._shared import shared


def full_size(window: Tensor, n_fft: int) -> Tensor:
    """The window (win_length,) centred in n_fft samples by zeros, as torch does it; differentiable."""
    missing = n_fft - window.shape[0]
    if missing == 0:
        return window
    left = missing // 2
    return F.pad(window, (left, missing - left))


def hann(win_length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A periodic Hann window (win_length,), the values of `torch.hann_window` on the CPU."""
    return _default("hann", win_length, win_length, dtype, device)


def rectangular(win_length: int, n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """win_length ones centred in n_fft samples."""
    return _default("ones", win_length, n_fft, dtype, device)


@shared("default windows")
def _default(name: str, win_length: int, n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    window = (torch.hann_window if name == "hann" else torch.ones)(win_length, dtype=dtype, device="cpu")
    return full_size(window, n_fft).to(device)
