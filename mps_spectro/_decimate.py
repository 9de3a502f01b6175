"""Decimation by powers of two: a low-pass filter on every second sample, as a matrix product of blocks of the signal.

A convolution would be shorter to write, but on CUDA torch runs those in TF32 unless told otherwise.
"""

from __future__ import annotations

import math
from typing import Sequence

import torch
from torch import Tensor

from ._reference import padded

# outputs of one row of the product: wide enough that its overlap costs little, small enough that the matrix stays small
_BLOCK = 128
# half-band filters of soxr, every second tap of one side; those between are zero, but the middle one is 0.5
_SHORT = (0.3115466, -0.0873449, 0.0368144, -0.0151892, 0.0054543, -0.0015646, 0.0003181, -0.0000346)
_LONG = (0.3122700, -0.0892209, 0.0391393, -0.0172506, 0.0068587, -0.0023036, 0.0006092, -0.0001130, 0.0000112)


def kaiser_sinc(cutoff: float, half_width: float, beta: float) -> Tensor:
    """Low-pass filter in float64: sinc(cutoff n) under a Kaiser window over |n| <= half_width, with unit sum.

    Args:
        cutoff: in units of the Nyquist frequency.
    """
    reach = math.floor(half_width)
    n = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    window = torch.special.i0(beta * (1.0 - (n / half_width).square()).sqrt())
    taps = torch.sinc(cutoff * n) * window
    return taps / taps.sum()


def soxr_stages(count: int) -> list[Tensor]:
    """Filters, in float64, of the halvings by which soxr's "HQ" recipe, librosa's default, decimates by 2 ** count.

    Short half-band filters, and in the end one that passes 0.913 of the new band and stops where it ends. Fitted to the
    impulse responses of soxr 1.1 (libsoxr 0.1.3): for count 1 the frequency responses agree within 2e-7.
    """
    side = _SHORT if count < 4 else _LONG
    half_band = torch.zeros(4 * len(side) - 1, dtype=torch.float64, device="cpu")
    half_band[::2] = torch.tensor((*side[::-1], *side), dtype=torch.float64, device="cpu")
    half_band[2 * len(side) - 1] = 0.5
    stricter = 20.0 * math.log10(count)  # dB, so that the errors of all halvings sum up to the same
    n_taps = 4 * math.ceil(0.8105 * (119.1 + stricter)) + 1
    return [half_band] * (count - 1) + [kaiser_sinc(0.47843591, n_taps / 2, 13.040035 + 0.1115 * stricter)]


def halving(taps: Tensor) -> Tensor:
    """The matrix that filters and halves one block: (n_taps + 2 * (block - 1), block), dtype of the taps."""
    matrix = taps.new_zeros(taps.shape[0] + 2 * (_BLOCK - 1), _BLOCK)
    for column in range(_BLOCK):
        matrix[2 * column : 2 * column + taps.shape[0], column] = taps
    return matrix


def _halved(x: Tensor, matrix: Tensor, pad_mode: str) -> Tensor:
    rows, block = matrix.shape
    left = half = (rows - 2 * (block - 1)) // 2
    n_out = (x.shape[1] + 1) // 2
    if pad_mode != "constant":
        x, left = padded(x, half, x.shape[1] + 2 * half, pad_mode), 0
    n_blocks = -(-n_out // block)
    x = padded(x, left, 2 * block * (n_blocks - 1) + rows, "constant")
    return torch.matmul(x.unfold(1, rows, 2 * block), matrix).flatten(1)[:, :n_out]


def decimate(x: Tensor, matrices: Sequence[Tensor], pad_mode: str = "constant") -> Tensor:
    """Every 2 ** n-th sample of the filtered signal, the first one included; differentiable.

    Args:
        x: (B, T).
        matrices: n of `halving`, dtype and device of x.
        pad_mode: how the signal goes on at either end for half the length of the filter.

    Returns:
        (B, ceil(T / 2 ** n)).
    """
    if len(matrices) == 1:
        return _halved(x, matrices[0], pad_mode)
    length, factor = x.shape[1], 2 ** len(matrices)
    x = padded(x, 0, length + 18 * factor, "constant")  # as far as the filters draw it out
    for matrix in matrices:
        x = _halved(x, matrix, pad_mode)
    kept = (length + factor // 2) // factor  # soxr rounds where librosa asks for the next whole number
    return padded(x[:, :kept], 0, -(-length // factor), "constant")
