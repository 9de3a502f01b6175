"""Several descriptors of one signal from one transform: a function and a module."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Sequence

import torch
from torch import Tensor

from ._arguments import ArgumentError
from ._compiled import CompiledMethods
from ._derived import moved
from ._float_buffers import FloatBuffers, own
from ._frontend import Spectrum, signal
from ._magnitudes import bin_ramp, bin_spacing, descriptor_spectrum, fraction, positive, transformed
from ._shared import shared
from ._shown import arguments_of, shown
from ._window_functions import stand_in, window_for
from .chroma import check_chroma, chroma_bank, normalized_classes
from .descriptors import Band, contrast, contrast_bands, moments
from .filters import amplitude_to_db, db_arguments, mel_bank
from .mfcc import _check_sizes, _matrix, cepstra
from .typing import CenterPadMode, CenterTailPad, MelNorm, MelScale, WindowLike

FEATURES = ("chroma_stft", "spectral_centroid", "spectral_bandwidth", "spectral_rolloff", "spectral_contrast", "mfcc")
_MOMENTS = {"spectral_centroid": "centroid", "spectral_bandwidth": "bandwidth", "spectral_rolloff": "rolloff"}

# the arguments of chroma_bank, mel_bank and the matrix of mfcc but for dtype and device
_Chroma = tuple[float, int, int, float]
_Mel = tuple[int, float, "float | None", int, Any, MelNorm, MelScale, str, int]
_Dct = tuple[int, int, "str | None", float]


class _Plan(NamedTuple):
    """Checked arguments. Those of features that are not wanted are left out."""

    include: tuple[str, ...]
    spectrum: Spectrum
    sample_rate: float
    p: float
    roll_percent: float
    bands: tuple[Band, ...]
    chroma: _Chroma | None
    chroma_norm: float | None
    mel: _Mel | None
    top_db: float | None
    dct: _Dct | None

    @property
    def n_chroma(self) -> int:
        return 0 if self.chroma is None else self.chroma[2]


class _Tables(NamedTuple):
    """What a plan computes with; shared by all plans that need the same. Nobody may write to them."""

    window: Tensor
    ramp: Tensor
    bank: Tensor | None
    dct: Tensor | None


def _included(include: Sequence[str] | None) -> tuple[str, ...]:
    if include is None:
        return FEATURES
    if isinstance(include, str):
        raise TypeError(f"include must be a sequence of names, got the string {include!r}; use ({include!r},)")
    names = tuple(dict.fromkeys(include))
    if not names:
        raise ArgumentError("include must name at least one feature, got none")
    for name in names:
        if name not in FEATURES:
            raise ArgumentError(f"Unknown spectral feature {name!r}: include must name some of {', '.join(FEATURES)}")
    return names


def _planned(
    *,
    include: Sequence[str] | None,
    sample_rate: float,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    center: bool,
    center_pad_mode: CenterPadMode,
    center_tail_pad: CenterTailPad,
    normalized: bool | str,
    n_chroma: int,
    chroma_norm: float | None,
    tuning: float,
    bandwidth_p: float,
    roll_percent: float,
    n_bands: int,
    contrast_fmin: float,
    contrast_quantile: float,
    n_mfcc: int,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    mel_norm: MelNorm,
    mel_scale: MelScale,
    top_db: float | None,
    lifter: float,
    dct_norm: str | None,
) -> _Plan:
    names = _included(include)
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized)
    positive("sample_rate", sample_rate)
    positive("bandwidth_p", bandwidth_p)
    fraction("roll_percent", roll_percent)
    bands: tuple[Band, ...] = ()
    chroma: _Chroma | None = None
    mel: _Mel | None = None
    dct: _Dct | None = None
    if "spectral_contrast" in names:
        bands = contrast_bands(sample_rate, s.n_fft, n_bands, contrast_fmin, contrast_quantile)
    if "chroma_stft" in names:
        check_chroma(sample_rate, s.n_fft, n_chroma, chroma_norm, tuning)
        chroma = (sample_rate, s.n_fft, n_chroma, tuning)
    if "mfcc" in names:
        _check_sizes(n_mfcc, n_mels, dct_norm, lifter)
        db_arguments("power", top_db, 1e-10, "per_example")
        mel = (s.n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, mel_norm, mel_scale, "librosa", s.n_fft)
        dct = (n_mfcc, n_mels, dct_norm, lifter)
    moment_options = (bandwidth_p, roll_percent)
    return _Plan(names, s, sample_rate, *moment_options, bands, chroma, chroma_norm, mel, top_db, dct)


@shared("banks of feature bundles", 32)
def _bank(chroma: _Chroma | None, mel: _Mel | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The banks of chroma and mel below one another: one product of matrices gives both."""
    parts = [] if chroma is None else [chroma_bank(*chroma, dtype, device)]
    parts += [] if mel is None else [mel_bank(*mel, dtype, device)]
    return torch.cat(parts)


def _tables(plan: _Plan, window_fn: WindowLike, like: Tensor) -> _Tables:
    """The window and the tables of a plan with the dtype and the device of a tensor."""
    return _Tables(
        window_for(window_fn, like, plan.spectrum.win_length),
        bin_ramp(plan.spectrum.n_fft, like.dtype, like.device),
        None if plan.chroma is plan.mel is None else _bank(plan.chroma, plan.mel, like.dtype, like.device),
        None if plan.dct is None else _matrix(*plan.dct, like.dtype, like.device),
    )


def _extracted(x: Tensor, plan: _Plan, tables: _Tables) -> dict[str, Tensor]:
    """The features of x (..., T), float32 or float64, in the order in which they were asked for."""
    found: dict[str, Tensor] = {}
    sums = None
    wanted = {_MOMENTS[name]: name for name in plan.include if name in _MOMENTS}
    if wanted or plan.bands:
        rows = transformed(x, tables.window, None, plan.spectrum)
        spacing = bin_spacing(plan.sample_rate, plan.spectrum.n_fft)
        for moment, values in moments(rows, tables.ramp, spacing, wanted, plan.p, plan.roll_percent).items():
            found[wanted[moment]] = values
        if plan.bands:
            found["spectral_contrast"] = contrast(rows, plan.bands)
        if tables.bank is not None:
            # inside of autocast the product would be one of halves
            with torch.autocast(rows.device.type, enabled=False):
                sums = torch.matmul(rows.square(), tables.bank.t())
    elif tables.bank is not None:
        sums = transformed(x, tables.window, tables.bank, plan.spectrum._replace(power=2.0))
    if sums is not None:
        n_chroma = plan.n_chroma
        sums = sums.transpose(-1, -2)
        if plan.chroma is not None:
            found["chroma_stft"] = normalized_classes(sums[..., :n_chroma, :], plan.chroma_norm)
        if tables.dct is not None:
            decibels = amplitude_to_db(sums[..., n_chroma:, :], top_db=plan.top_db, mode="per_example")
            found["mfcc"] = cepstra(decibels, tables.dct)
    return {name: found[name] for name in plan.include}


def spectral_features(
    x: Tensor,
    *,
    include: Sequence[str] | None = None,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
    n_chroma: int = 12,
    chroma_norm: float | None = math.inf,
    tuning: float = 0.0,
    bandwidth_p: float = 2.0,
    roll_percent: float = 0.85,
    n_bands: int = 6,
    contrast_fmin: float = 200.0,
    contrast_quantile: float = 0.02,
    n_mfcc: int = 20,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_norm: MelNorm = "slaney",
    mel_scale: MelScale = "slaney",
    top_db: float | None = 80.0,
    lifter: float = 0,
    dct_norm: str | None = "ortho",
) -> dict[str, Tensor]:
    """Several descriptors of a signal, which is transformed once for all of them.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        include: which ones, of "chroma_stft", "spectral_centroid", "spectral_bandwidth", "spectral_rolloff",
            "spectral_contrast" and "mfcc"; default all, in this order. Arguments of others do not count.
        sample_rate to normalized: as for `spectral_centroid`. Where the signal is too short to be reflected, zeros are
            taken instead, for "mfcc" as well.
        n_chroma, chroma_norm, tuning: as for `chroma_stft`, whose `norm` is `chroma_norm`.
        bandwidth_p: p of `spectral_bandwidth`.
        roll_percent: as for `spectral_rolloff`.
        n_bands, contrast_fmin, contrast_quantile: n_bands, fmin and quantile of `spectral_contrast`.
        n_mfcc, n_mels, f_min, f_max, mel_norm, mel_scale, top_db, lifter, dct_norm: as for `mfcc`, whose `norm` is
            `mel_norm`.

    Returns:
        Of each name what the function of this name gives, in the order of `include`.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: an unknown feature, a value or a size that does not fit (it is a RuntimeError as well).
    """
    plan = _planned(**{name: value for name, value in locals().items() if name not in ("x", "window_fn")})
    x = signal(x)
    return _extracted(x, plan, _tables(plan, window_fn, x))


class SpectralFeatureTransform(CompiledMethods, FloatBuffers):
    """Module of `spectral_features`: (..., T) to a mapping of names to features.

    The window, the places of the bins, the banks and the cosine transform are buffers (`window`, `ramp`, `bank`, `dct`)
    that are not in the state dict. Instances with equal arguments share them until they are moved or copied: write to
    none of them. They move with the module, stay in float32 when it is cast to half, and follow the dtype and
    device of the signal where they differ.

    Args:
        all: as for `spectral_features`.

    Raises:
        TypeError, ValueError: as `spectral_features`, where they do not depend on the signal.
    """

    window: Tensor
    ramp: Tensor
    bank: Tensor | None
    dct: Tensor | None

    def __init__(
        self,
        *,
        include: Sequence[str] | None = None,
        sample_rate: float = 22050,
        n_fft: int = 2048,
        hop_length: int | None = 512,
        win_length: int | None = None,
        window_fn: WindowLike = "hann",
        center: bool = True,
        center_pad_mode: CenterPadMode = "constant",
        center_tail_pad: CenterTailPad = "symmetric",
        normalized: bool | str = False,
        n_chroma: int = 12,
        chroma_norm: float | None = math.inf,
        tuning: float = 0.0,
        bandwidth_p: float = 2.0,
        roll_percent: float = 0.85,
        n_bands: int = 6,
        contrast_fmin: float = 200.0,
        contrast_quantile: float = 0.02,
        n_mfcc: int = 20,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        mel_norm: MelNorm = "slaney",
        mel_scale: MelScale = "slaney",
        top_db: float | None = 80.0,
        lifter: float = 0,
        dct_norm: str | None = "ortho",
    ) -> None:
        arguments = arguments_of(SpectralFeatureTransform, locals())
        super().__init__()
        self._plan = _planned(**{name: value for name, value in arguments.items() if name != "window_fn"})
        self._shown = shown(SpectralFeatureTransform, arguments)
        for name, value in arguments.items():
            if not isinstance(value, Tensor):
                setattr(self, name, value)
        self.include = self._plan.include
        self.hop_length, self.win_length = self._plan.spectrum.hop_length, self._plan.spectrum.win_length
        if isinstance(window_fn, Tensor) and window_fn.requires_grad:
            raise ArgumentError("window_fn must not require grad; spectral_features takes a window that learns")
        for name, table in _tables(self._plan, window_fn, stand_in(window_fn))._asdict().items():
            self.register_buffer(name, own(window_fn) if table is window_fn else table, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The features of x (..., T), by name, in the order of `include`."""
        x = signal(x)
        bank, dct = (None if table is None else moved(table, x.dtype, x.device) for table in (self.bank, self.dct))
        return _extracted(x, self._plan, _Tables(self.window, moved(self.ramp, x.dtype, x.device), bank, dct))

    def extract(self, x: Tensor) -> dict[str, Tensor]:
        """The same as calling the module."""
        return self(x)

    def extra_repr(self) -> str:
        return self._shown
