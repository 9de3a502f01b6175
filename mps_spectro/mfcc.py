"""Mel-frequency cepstral coefficients: a function and a module, the numbers of librosa.feature.mfcc."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from ._arguments import ArgumentError, integer
from ._compiled import CompiledMethods
from ._db_mel import db_mel_arguments, decibels, tables
from ._derived import moved
from ._float_buffers import FloatBuffers, own
from ._frontend import run, signal
from ._shared import shared
from ._shown import arguments_of, shown
from ._window_functions import stand_in
from .typing import CenterPadMode, CenterTailPad, MelMode, MelNorm, MelScale, WindowLike

_OF_DCT = ("n_mfcc", "lifter", "dct_norm")


def _check_sizes(n_mfcc: int, n_mels: int, dct_norm: str | None, lifter: float, norm_name: str = "dct_norm") -> None:
    n_mfcc, n_mels = integer("n_mfcc", n_mfcc), integer("n_mels", n_mels)
    if not n_mels > 0:
        raise ArgumentError(f"n_mels must be positive, got {n_mels}")
    if not 0 < n_mfcc <= n_mels:
        raise ArgumentError(f"n_mfcc must be in 1 .. n_mels={n_mels}, got {n_mfcc}")
    if dct_norm not in ("ortho", None):
        raise ArgumentError(f"{norm_name} must be 'ortho' or None, got {dct_norm!r}")
    if not 0 <= lifter < math.inf:
        raise ArgumentError(f"lifter must be at least 0 and finite, got {lifter}")


def _build(n_mfcc: int, n_mels: int, norm: str | None, lifter: float) -> Tensor:
    """(n_mfcc, n_mels) in float64 on the CPU, its rows scaled by the lifter."""
    n = torch.arange(n_mels, dtype=torch.float64, device="cpu")
    k = torch.arange(n_mfcc, dtype=torch.float64, device="cpu")[:, None]
    matrix = torch.cos(math.pi / n_mels * (n + 0.5) * k)
    if norm is None:
        matrix = 2.0 * matrix
    else:
        matrix = math.sqrt(2.0 / n_mels) * matrix
        matrix[0] = math.sqrt(1.0 / n_mels)
    if lifter > 0:
        matrix = matrix * (1.0 + 0.5 * lifter * torch.sin(math.pi * (k + 1.0) / lifter))
    return matrix


@shared("DCT matrices")
def _matrix(
    n_mfcc: int, n_mels: int, norm: str | None, lifter: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return _build(n_mfcc, n_mels, norm, lifter).to(dtype).to(device)


def dct_matrix(
    n_mfcc: int,
    n_mels: int,
    *,
    norm: str | None = "ortho",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The first n_mfcc rows of the type-II discrete cosine transform of n_mels values.

    `dct_matrix(n_mfcc, n_mels) @ bands` are the coefficients of bands (n_mels, n_frames), as scipy.fft.dct(bands,
    axis=0, norm=norm)[:n_mfcc]. torchaudio.functional.create_dct gives the transpose, (n_mels, n_mfcc).

    Args:
        n_mfcc: number of coefficients, at most n_mels.
        n_mels: number of values.
        norm: "ortho": rows of length 1. None: 2 cos(pi k (n + 1/2) / n_mels).

    Returns:
        (n_mfcc, n_mels), a new tensor each time.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size out of range, an unknown norm.
    """
    _check_sizes(n_mfcc, n_mels, norm, 0.0, "norm")
    return _build(n_mfcc, n_mels, norm, 0.0).to(dtype).to(device)


def cepstra(bands: Tensor, matrix: Tensor) -> Tensor:
    """Coefficients (..., n_mfcc, n_frames) of bands (..., n_mels, n_frames) by a matrix (n_mfcc, n_mels)."""
    kind = bands.device.type
    # half precision would be that of the products; autocast knows no meta tensors
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext():
        return torch.matmul(bands.transpose(-1, -2), matrix.t()).transpose(-1, -2)


def mfcc(
    x: Tensor | None = None,
    *,
    S: Tensor | None = None,
    sample_rate: float = 22050,
    n_mfcc: int = 20,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    power: float = 2.0,
    norm: MelNorm = "slaney",
    mel_scale: MelScale = "slaney",
    top_db: float | None = 80.0,
    mode: MelMode = "per_example",
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    lifter: float = 0,
    dct_norm: str | None = "ortho",
) -> Tensor:
    """Mel-frequency cepstral coefficients, as librosa.feature.mfcc.

    One kernel goes from the signal to the bands in decibels, 10 log10 max(mel, 1e-10) for any `power`; their type-II
    discrete cosine transform is one product of matrices. Gradients flow to the signal (or S) and to a tensor
    `window_fn`, and are finite at silence.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        S: (..., n_mels, n_frames) bands in decibels in place of x; only n_mfcc, lifter and dct_norm count then.
        sample_rate: in Hz.
        n_mfcc: number of coefficients, at most n_mels.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames.
        win_length: samples of the window, centred in n_fft; default n_fft.
        n_mels, f_min, f_max, norm, mel_scale: the bank, as for `melscale_fbanks` with convention="librosa".
        power: exponent of the magnitudes. With 1, bands 80 dB below a pure tone lie below the rounding of float32.
        top_db: how far below the largest value of its group a band may lie; None for no limit.
        mode: the groups of `top_db`, as for `amplitude_to_db`. "per_example", the default, is librosa of each signal
            of a batch by itself. librosa of the whole batch has one group, which is "torchaudio_compat" for up to
            three dimensions.
        window_fn: as for `mel_spectrogram`, or a tensor (win_length,).
        center: pad the signal by n_fft // 2 at each end, in `center_pad_mode`: "constant", "reflect", "replicate" or
            "circular".
        center_tail_pad: "symmetric", or with center_pad_mode="constant" "minimal": ceil(T / hop_length) frames.
        lifter: L > 0 scales coefficient n = 1 .. n_mfcc by 1 + L / 2 sin(pi n / L); 0 does not.
        dct_norm: "ortho" or None, as `norm` of `dct_matrix`.

    Returns:
        (..., n_mfcc, n_frames); the coefficients of one frame are adjacent in memory.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit, such as a signal too short to be reflected.
    """
    given = db_mel_arguments(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        power=power,
        norm=norm,
        mel_scale=mel_scale,
        top_db=top_db,
        mode=mode,
        window_fn=window_fn,
        center=center,
        center_pad_mode=center_pad_mode,
        center_tail_pad=center_tail_pad,
    )
    bands = decibels(x, S, given)
    _check_sizes(n_mfcc, bands.shape[-2], dct_norm, lifter)
    return cepstra(bands, _matrix(n_mfcc, bands.shape[-2], dct_norm, lifter, bands.dtype, bands.device))


class MFCCTransform(CompiledMethods, FloatBuffers):
    """Module of `mfcc`: (..., T) to (..., n_mfcc, n_frames), as librosa.feature.mfcc.

    The window, the bank and the cosine transform (with its lifter) are buffers (`window`, `mel_basis`, `dct`) that are
    not in the state dict. They move with the module, stay in float32 when it is cast to half, and follow the dtype and
    device of the signal where they differ.

    Args:
        all: as for `mfcc`.

    Raises:
        TypeError, ValueError: as `mfcc`, where they do not depend on the signal.
    """

    window: Tensor
    mel_basis: Tensor
    dct: Tensor

    def __init__(
        self,
        *,
        sample_rate: float = 22050,
        n_mfcc: int = 20,
        n_fft: int = 2048,
        hop_length: int = 512,
        win_length: int | None = None,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
        norm: MelNorm = "slaney",
        mel_scale: MelScale = "slaney",
        top_db: float | None = 80.0,
        mode: MelMode = "per_example",
        window_fn: WindowLike = "hann",
        center: bool = True,
        center_pad_mode: CenterPadMode = "constant",
        center_tail_pad: CenterTailPad = "symmetric",
        lifter: float = 0,
        dct_norm: str | None = "ortho",
    ) -> None:
        arguments = arguments_of(MFCCTransform, locals())
        super().__init__()
        for name, value in arguments.items():
            if not isinstance(value, Tensor):
                setattr(self, name, value)
        self._shown = shown(MFCCTransform, arguments)
        _check_sizes(n_mfcc, n_mels, dct_norm, lifter)
        given = db_mel_arguments(**{name: arguments[name] for name in arguments if name not in _OF_DCT})
        self._spectrum, self._output = given.spectrum, given.output
        self.win_length = given.spectrum.win_length
        like = stand_in(window_fn)
        window, basis = tables(given, like)
        dct = _matrix(n_mfcc, n_mels, dct_norm, lifter, like.dtype, like.device)
        for name, table in (("window", window), ("mel_basis", basis), ("dct", dct)):
            self.register_buffer(name, own(table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients (..., n_mfcc, n_frames) of x (..., T)."""
        bands = run(signal(x), self.window, self.mel_basis, self._spectrum, self._output)
        return cepstra(bands, moved(self.dct, bands.dtype, bands.device))

    def extra_repr(self) -> str:
        return self._shown
