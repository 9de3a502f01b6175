"""Spectrograms through a bank of the user's own: a function and a module on the fused op of the mel front ends."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from ._arguments import ArgumentError, _tensor, choice
from ._compiled import CompiledMethods
from ._float_buffers import FloatBuffers, own
from ._frontend import (
    Output,
    Spectrum,
    _bank_for,
    _kept,
    output,
    run,
    signal,
    spectrum,
    zeros_where_short,
)
from ._shown import arguments_of, shown
from ._window_functions import stand_in, window_for
from .typing import CenterPadMode, CenterTailPad, FilteredOutputScale, LogMelMode, WindowLike

OUTPUT_SCALES = get_args(FilteredOutputScale)


def _pipeline(
    filterbank: Tensor,
    *,
    sample_rate: float,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    power: float,
    output_scale: str,
    top_db: float | None,
    log_amin: float,
    log_mode: str,
    log_scale: float | None,
    center: bool,
    center_pad_mode: CenterPadMode,
    center_tail_pad: CenterTailPad,
    normalized: bool | str,
    use_mps_kernels: bool,
) -> tuple[Spectrum, Output]:
    """The arguments that the function and the module share, checked."""
    s = spectrum(
        n_fft,
        hop_length,
        win_length,
        normalized,
        center=center,
        pad_mode=center_pad_mode,
        center_tail_pad=center_tail_pad,
        power=power,
        use_mps_kernels=use_mps_kernels,
    )
    if not 0 < sample_rate < math.inf:
        raise ArgumentError(f"sample_rate must be positive, got {sample_rate}")
    choice("output_scale", output_scale, OUTPUT_SCALES)
    out = output(
        "log" if output_scale == "log10_plus_one" else output_scale, power, log_amin, log_mode, log_scale, top_db
    )
    if output_scale == "log10_plus_one":
        out = plus_one()
    if not _tensor("filterbank", filterbank).is_floating_point():
        raise TypeError(f"filterbank must be real and floating point, got {filterbank.dtype}")
    if filterbank.dim() != 2 or filterbank.numel() == 0:
        raise ArgumentError(f"filterbank must have shape (n_freqs, n_bands), got {tuple(filterbank.shape)}")
    if filterbank.shape[0] not in (n_fft // 2, n_fft // 2 + 1):
        raise ArgumentError(
            f"filterbank axis 0 must have size n_fft // 2 = {n_fft // 2} (without the Nyquist frequency) "
            f"or n_fft // 2 + 1 = {n_fft // 2 + 1}, got {filterbank.shape[0]}"
        )
    return s, out


def plus_one(mul: float = 1.0) -> Output:
    """log10(mul * bands + 1)."""
    return output("log", 1.0, log_mode="log1p", log_scale=mul, log_base=10.0)


def _rows(filterbank: Tensor, n_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _bank_for(filterbank.t(), n_bins, dtype, device).contiguous()


def filtered(x: Tensor, window: Tensor, filterbank: Tensor, s: Spectrum, out: Output) -> Tensor:
    """`run` of a bank (n_freqs, n_bands), of which kernels want the transpose; made once as long as it is unchanged."""
    return run(x, window, _kept(filterbank, _rows, s.n_fft // 2 + 1, x.dtype, x.device), s, out)


def filtered_spectrogram(
    x: Tensor,
    *,
    filterbank: Tensor,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    power: float = 1.0,
    output_scale: FilteredOutputScale = "linear",
    top_db: float | None = None,
    log_amin: float = 1e-5,
    log_mode: LogMelMode = "clamp",
    log_scale: float | None = None,
    window_fn: WindowLike = "hann",
    periodic: bool = True,
    center: bool = True,
    center_pad_mode: CenterPadMode = "reflect",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
    use_mps_kernels: bool = True,
) -> Tensor:
    """Spectrogram of a signal through any filterbank: sums of |X|^power over the bins, weighted by its columns.

    One kernel reads the signal and writes the bands. Gradients flow to the signal, to the filterbank and to a window
    that is given, in every mode and to any order, and are finite at silence.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        filterbank: (n_freqs, n_bands), n_freqs = n_fft // 2 + 1, or n_fft // 2 to leave out the Nyquist frequency.
        sample_rate: in Hz; says what the bank was made for and changes nothing.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames; None for n_fft // 4.
        win_length: samples of the window, centred in n_fft; default n_fft.
        power: exponent of the magnitudes.
        output_scale: of the bands y: "linear"; "log", as `log_mode` says; "log10_plus_one", log10(y + 1); "db",
            20 log10 for power 1, else 10 log10, of no less than 1e-10.
        top_db: with "db", how far below the largest value of its example anything may lie; None for no limit.
        log_amin: a > 0 of log_mode "clamp", ln(max(y, a)), and "add", ln(y + a).
        log_mode: "clamp", "add" or "log1p", ln(1 + log_scale * y).
        log_scale: default 1 / log_amin.
        window_fn: function of win_length, periodic=, dtype= and device= (or of win_length alone), a name ("hann",
            "hamming", "rect", or any in torch.signal.windows), or the window itself (win_length,).
        periodic: False for a symmetric window.
        center: pad the signal by n_fft // 2 at each end.
        center_pad_mode: how: "reflect", "constant" (zeros), "replicate" or "circular". Where the signal is too short
            to be reflected or wrapped around (T <= n_fft // 2), zeros are taken instead.
        center_tail_pad: "symmetric", or with center_pad_mode="constant" "minimal": ceil(T / hop_length) frames.
        normalized: True or "frame_length" divides magnitudes by sqrt(n_fft), "window" by the root of the window's
            energy.
        use_mps_kernels: False computes in plain torch.

    Returns:
        (..., n_bands, n_frames); the bands of one frame are adjacent in memory.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit (it is a RuntimeError as well).
    """
    s, out = _pipeline(
        filterbank,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        power=power,
        output_scale=output_scale,
        top_db=top_db,
        log_amin=log_amin,
        log_mode=log_mode,
        log_scale=log_scale,
        center=center,
        center_pad_mode=center_pad_mode,
        center_tail_pad=center_tail_pad,
        normalized=normalized,
        use_mps_kernels=use_mps_kernels,
    )
    x = signal(x)
    window = window_for(window_fn, x, s.win_length, periodic)
    return filtered(x, window, filterbank, zeros_where_short(s, x.shape[-1]), out)


class FilteredSpectrogramTransform(CompiledMethods, FloatBuffers):
    """Module of `filtered_spectrogram`: (..., T) to (..., n_bands, n_frames).

    The window and the filterbank are buffers (`window`, `filterbank`) that are not in the state dict. They move with
    the module, stay in float32 when it is cast to half, and follow the dtype and device of the signal where they
    differ. A filterbank that is a torch.nn.Parameter is a parameter of the module and learns.

    Args:
        filterbank to use_mps_kernels: as for `filtered_spectrogram`.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self,
        *,
        filterbank: Tensor,
        sample_rate: float = 22050,
        n_fft: int = 2048,
        hop_length: int | None = 512,
        win_length: int | None = None,
        power: float = 1.0,
        output_scale: FilteredOutputScale = "linear",
        top_db: float | None = None,
        log_amin: float = 1e-5,
        log_mode: LogMelMode = "clamp",
        log_scale: float | None = None,
        window_fn: WindowLike = "hann",
        periodic: bool = True,
        center: bool = True,
        center_pad_mode: CenterPadMode = "reflect",
        center_tail_pad: CenterTailPad = "symmetric",
        normalized: bool | str = False,
        use_mps_kernels: bool = True,
    ) -> None:
        arguments = arguments_of(FilteredSpectrogramTransform, locals())
        super().__init__()
        shared = {name: value for name, value in arguments.items() if name not in ("window_fn", "periodic")}
        self._spectrum, self._output = _pipeline(**shared)
        for name, value in arguments.items():
            if name not in ("filterbank", "window_fn"):
                setattr(self, name, value)
        self.hop_length, self.win_length = self._spectrum.hop_length, self._spectrum.win_length
        self.n_bands = filterbank.shape[1]
        self._shown = shown(FilteredSpectrogramTransform, arguments)
        window = window_for(window_fn, stand_in(window_fn), self.win_length, periodic)
        self.register_buffer("window", own(window), persistent=False)
        if isinstance(filterbank, nn.Parameter):
            self.filterbank = filterbank
        else:
            self.register_buffer("filterbank", own(filterbank), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Bands (..., n_bands, n_frames) of x (..., T)."""
        x = signal(x)
        s = zeros_where_short(self._spectrum, x.shape[-1])
        return filtered(x, self.window, self.filterbank, s, self._output)

    def extra_repr(self) -> str:
        return self._shown
