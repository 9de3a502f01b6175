"""The window envelope sum_f window[q - f hop]^2 that istft divides by, and whether it is large enough (NOLA).

A table of it is dense, one entry per sample under the frames, or for long signals compact: away from both ends the
envelope repeats every hop, so `head (n_fft) | one period (hop) | tail (n_fft)` is all there is to know. What is derived
from a window is kept by the identity *and* version of the tensor it came from, so that a window that was changed in
place, or another one in recycled memory, is never mistaken for it.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor

from . import _reference
from ._cache import BoundedCache
from ._derived import capturing, remember

V = TypeVar("V")

LOWEST = 1e-11  # torch.istft calls anything below it a violation of NOLA

_reciprocals: BoundedCache[Tensor] = BoundedCache("reciprocal envelopes", 128)
_on_host: BoundedCache[Tensor] = BoundedCache("envelopes on the host", 64)
_verdicts: BoundedCache[bool] = BoundedCache("NOLA verdicts", 1024)


# entry in place of the number of frames where the table does not depend on it
_MANY = -1


def _frames_in_table(n_fft: int, hop_length: int, n_frames: int) -> int:
    """n_frames where the table is dense, one entry per sample under the frames, else _MANY."""
    return n_frames if (n_frames - 2) * hop_length <= n_fft else _MANY


def _table(window: Tensor, n_fft: int, hop_length: int, n_frames: int) -> Tensor:
    """The envelope, dense or (for _MANY frames) compact, in the widest float type of the device; differentiable."""
    window = window.to(torch.float32 if window.device.type == "mps" else torch.float64)
    left = (n_fft - window.shape[0]) // 2
    squares = F.pad(window, (left, n_fft - window.shape[0] - left)).square()
    count = -(-n_fft // hop_length)
    rows = F.pad(squares, (0, count * hop_length - n_fft)).view(count, hop_length)
    if n_frames != _MANY:
        rows = F.pad(rows, (0, 0, n_frames - 1, n_frames - 1))
        full_length = _reference.full_length(n_fft, hop_length, n_frames)
        return rows.unfold(0, n_frames, 1).sum(-1).reshape(-1)[:full_length]
    head = rows.cumsum(0).reshape(-1)[:n_fft]
    tail = rows.flip(0).cumsum(0).flip(0).reshape(-1)[:n_fft]
    return torch.cat([head, rows.sum(0), tail])


def reciprocal_envelope(
    window: Tensor, n_fft: int, hop_length: int, n_frames: int, dtype: torch.dtype | None = None
) -> Tensor:
    """The `env` of the ops for istft: 1 / envelope, and 0 where the envelope vanishes.

    Args:
        window: real, (win_length,) with win_length <= n_fft, centred in n_fft. Pass the tensor the user holds, not a
            copy: the table is cached by its identity and version.
        dtype: of the result; default window.dtype.

    Returns:
        ((n_frames - 1) * hop_length + n_fft,) or the compact (2 * n_fft + hop_length,), without gradient.
    """
    return remember(
        _reciprocals, window, _reciprocal, n_fft, hop_length, _frames_in_table(n_fft, hop_length, n_frames), dtype
    )


def _reciprocal(window: Tensor, n_fft: int, hop_length: int, n_frames: int, dtype: torch.dtype | None) -> Tensor:
    table = _table(window.detach(), n_fft, hop_length, n_frames)
    return table.reciprocal().masked_fill(table < LOWEST, 0.0).to(dtype or window.dtype)


def envelope(window: Tensor, n_fft: int, hop_length: int, n_frames: int) -> Tensor:
    """The envelope of every sample under the frames, ((n_frames - 1) * hop_length + n_fft,), differentiable."""
    table = _table(window, n_fft, hop_length, _frames_in_table(n_fft, hop_length, n_frames))
    return _reference.dense_gain(table, n_fft, hop_length, n_frames).to(window.dtype)


def nola_holds(window: Tensor, n_fft: int, hop_length: int, n_frames: int, start: int, stop: int) -> bool:
    """Whether the envelope is at least 1e-11 on samples [start, stop) under the frames, as torch.istft asks.

    Reads the window from its device at most once per window, n_fft and hop (for short signals, and n_frames). While a
    graph is being traced or captured the window cannot be read, and the answer is True.
    """
    if torch.compiler.is_compiling() or isinstance(window, FakeTensor) or capturing(window):
        return True

    return remember(_verdicts, window, _decide, n_fft, hop_length, n_frames, start, stop)


def _decide(window: Tensor, n_fft: int, hop_length: int, n_frames: int, start: int, stop: int) -> bool:
    frames = _frames_in_table(n_fft, hop_length, n_frames)
    table = remember(_on_host, window, _host_table, n_fft, hop_length, frames)
    parts = _parts(table, n_fft, hop_length, n_frames, start, stop)
    return not any(part.min().item() < LOWEST for part in parts if part.numel())


def _host_table(window: Tensor, n_fft: int, hop_length: int, n_frames: int) -> Tensor:
    return _table(window.detach(), n_fft, hop_length, n_frames).cpu()


def _parts(table: Tensor, n_fft: int, hop_length: int, n_frames: int, start: int, stop: int) -> list[Tensor]:
    """Parts of the table that cover samples [start, stop)."""
    full_length = _reference.full_length(n_fft, hop_length, n_frames)
    stop = min(stop, full_length)
    if len(table) == full_length:
        return [table[start:stop]]
    head, period, tail = table.split((n_fft, hop_length, n_fft))
    last = full_length - n_fft
    first, beyond = max(start, n_fft), min(stop, last)
    if beyond - first < hop_length:
        period = period[torch.arange(first, max(first, beyond)) % hop_length]
    return [head[start : min(stop, n_fft)], period, tail[max(0, start - last) : max(0, stop - last)]]
