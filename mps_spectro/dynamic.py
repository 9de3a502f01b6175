"""Mel front ends whose pitch and speed change from call to call, as voice conversion and pitch trackers use them.

A key shift scales the transform and the window, n_fft * 2 ** (keyshift / 12), and so moves every partial to where the
filterbank expects it; a speed scales the hop. Sizes other than the module's own run on kernels that many sizes share.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _kernels
from ._arguments import ArgumentError, _tensor, integer
from ._frontend import Output, Spectrum, output, run, signal, spectrum
from ._mel_module import MelModule
from ._shown import arguments_of
from ._window_functions import window_for
from .filters import mel_bank
from .typing import CenterPadMode, LogMelMode, MelMode, MelNorm, MelOutputScale, MelScale, WindowLike


def _shifted(s: Spectrum, keyshift: float, speed: float, normalized: bool | str, n_freqs: int | None) -> Spectrum:
    """The sizes for a key shift and a speed; `n_freqs`: magnitudes are those of the window's own length."""
    if not -math.inf < keyshift < math.inf:
        raise ArgumentError(f"keyshift must be finite, got {keyshift}")
    if not 0 < speed < math.inf:
        raise ArgumentError(f"speed must be positive, got {speed}")
    factor = 2.0 ** (keyshift / 12.0)
    n_fft, win_length, hop_length = (
        max(1, round(size * by)) for size, by in ((s.n_fft, factor), (s.win_length, factor), (s.hop_length, speed))
    )
    moved = spectrum(n_fft, hop_length, win_length, normalized)
    scale = moved.scale if n_freqs is None else moved.scale * (s.win_length / win_length)
    return s._replace(
        n_fft=n_fft, hop_length=hop_length, win_length=win_length, scale=scale, unit_energy=moved.unit_energy
    )


def _run(x: Tensor, window: Tensor, basis: Tensor | None, s: Spectrum, out: Output, n_fft: int) -> Tensor:
    # a size of its own for every key would be a kernel of its own for every key
    swept = s.n_fft != n_fft and not torch.compiler.is_compiling()
    with _kernels.run_time_sizes() if swept else contextlib.nullcontext():
        return run(x, window, basis, s, out)


def dynamic_spectrogram(
    x: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: CenterPadMode = "constant",
    power: float = 1.0,
    normalized: bool | str = False,
    keyshift: float = 0.0,
    speed: float = 1.0,
    target_n_freqs: int | None = None,
    magnitude_eps: float = 0.0,
    padding: int | str | None = None,
    use_public_stft: bool = False,
    window_fn: WindowLike = torch.hann_window,
    use_mps_kernels: bool = True,
) -> Tensor:
    """Spectrogram with n_fft and window scaled by 2 ** (keyshift / 12) and hop scaled by `speed`.

    Scaled sizes are rounded half to even, and are at least 1.

    Args:
        x: (..., T), floating point.
        n_fft, hop_length, win_length: sizes at keyshift 0 and speed 1; win_length defaults to n_fft.
        window: (scaled win_length,), in place of `window_fn`.
        center, pad_mode, power, normalized: as for `mel_spectrogram`.
        keyshift: in semitones.
        speed: factor of the hop.
        target_n_freqs: cut or continue by zeros to this many bins, and scale magnitudes by win_length over the scaled
            win_length, so that a partial is as strong at every key.
        magnitude_eps: e of sqrt(|X|^2 + e) for power 1, of |X|^power + e for others.
        padding: in place of that of `center`, as for `MelSpectrogramTransform`.
        use_public_stft: without effect.
        window_fn, use_mps_kernels: as for `mel_spectrogram`.

    Returns:
        (..., bins, n_frames), bins = scaled n_fft // 2 + 1 or target_n_freqs.

    Raises:
        TypeError, ValueError: as for `mel_spectrogram`.
    """
    options: dict[str, Any] = {"center": center, "pad_mode": pad_mode, "padding": padding, "power": power}
    options.update(magnitude_eps=magnitude_eps, use_mps_kernels=use_mps_kernels)
    base = spectrum(n_fft, hop_length, win_length, normalized, **options)
    if target_n_freqs is not None and integer("target_n_freqs", target_n_freqs) < 1:
        raise ArgumentError(f"target_n_freqs must be positive, got {target_n_freqs}")
    s = _shifted(base, keyshift, speed, normalized, target_n_freqs)
    x = signal(x)
    window = window_for(window_fn if window is None else _tensor("window", window), x, s.win_length)
    out = _run(x, window, None, s, Output(), n_fft)
    if target_n_freqs is None:
        return out
    missing = target_n_freqs - out.shape[-2]
    return F.pad(out, (0, 0, 0, missing)) if missing > 0 else out[..., :target_n_freqs, :]


def _checked_basis(mel_basis: Any) -> Tensor:
    if not isinstance(mel_basis, Tensor) or not mel_basis.is_floating_point():
        raise TypeError(f"mel_basis must be a floating point tensor, got {type(mel_basis).__name__}")
    if mel_basis.dim() != 2 or 0 in mel_basis.shape:
        raise ArgumentError(f"mel_basis must have shape (n_mels, n_freqs), got {tuple(mel_basis.shape)}")
    return mel_basis


def dynamic_mel_spectrogram(
    x: Tensor,
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    center: bool = True,
    pad_mode: CenterPadMode = "constant",
    power: float = 1.0,
    normalized: bool | str = False,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    norm: MelNorm = None,
    mel_scale: MelScale = "htk",
    output_scale: MelOutputScale = "linear",
    log_amin: float = 1e-5,
    log_mode: LogMelMode = "clamp",
    log_scale: float | None = None,
    top_db: float | None = 80.0,
    mode: MelMode = "per_example",
    keyshift: float = 0.0,
    speed: float = 1.0,
    mel_basis: Tensor | None = None,
    magnitude_eps: float = 0.0,
    padding: int | str | None = None,
    use_public_stft: bool = False,
    window_fn: WindowLike = torch.hann_window,
    use_mps_kernels: bool = True,
) -> Tensor:
    """`mel_spectrogram` of the bins that `dynamic_spectrogram` gives for n_fft // 2 + 1 of them.

    Args:
        mel_basis: (n_mels, n_freqs), in place of the bank of n_mels to mel_scale; the spectrum is cut or continued by
            zeros to its n_freqs bins.
        All others as for `mel_spectrogram` and `dynamic_spectrogram`.

    Returns:
        (..., n_mels, n_frames).
    """
    options: dict[str, Any] = {"center": center, "pad_mode": pad_mode, "padding": padding, "power": power}
    options.update(magnitude_eps=magnitude_eps, use_mps_kernels=use_mps_kernels)
    base = spectrum(n_fft, hop_length, win_length, normalized, **options)
    out = output(output_scale, power, log_amin, log_mode, log_scale, top_db, mode)
    x = signal(x)
    if mel_basis is None:
        bank = (n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm, mel_scale)
        mel_basis = mel_bank(*bank, dtype=x.dtype, device=x.device)
    s = _shifted(base, keyshift, speed, normalized, _checked_basis(mel_basis).shape[1])
    return _run(x, window_for(window_fn, x, s.win_length), mel_basis, s, out, n_fft)


class DynamicMelSpectrogramTransform(MelModule):
    """Module of `dynamic_mel_spectrogram`: key shift, speed and centring are chosen at each call.

    The window of keyshift 0 and the bank are buffers (`window`, `mel_basis`) that are not in the state dict. A
    `mel_basis` that is a torch.nn.Parameter is a parameter of the module and learns.

    Args:
        sample_rate to use_mps_kernels: as for `dynamic_mel_spectrogram` and `MelSpectrogramTransform`.
        mel_basis: (n_mels, n_freqs) in place of the bank.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        win_length: int | None = None,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        center: bool = True,
        pad_mode: CenterPadMode = "constant",
        power: float = 1.0,
        normalized: bool | str = False,
        norm: MelNorm = None,
        mel_scale: MelScale = "htk",
        output_scale: MelOutputScale = "linear",
        log_amin: float = 1e-5,
        log_mode: LogMelMode = "clamp",
        log_scale: float | None = None,
        log_base: float | None = None,
        top_db: float | None = 80.0,
        mode: MelMode = "per_example",
        mel_basis: Tensor | None = None,
        window_fn: WindowLike = torch.hann_window,
        periodic: bool = True,
        convention: str = "torchaudio",
        padding: int | str | None = None,
        magnitude_eps: float = 0.0,
        use_mps_kernels: bool = True,
    ) -> None:
        if mel_basis is not None:
            mel_basis = _checked_basis(mel_basis)
        super().__init__(**arguments_of(DynamicMelSpectrogramTransform, locals()))

    def forward(self, x: Tensor, *, keyshift: float = 0.0, speed: float = 1.0, center: bool | None = None) -> Tensor:
        """Mel spectrogram (..., n_mels, n_frames) of x (..., T).

        Args:
            keyshift: in semitones; scales n_fft and the window by 2 ** (keyshift / 12).
            speed: factor of the hop.
            center: of this call; default that of the module.
        """
        x = signal(x)
        base = self._spectrum if center is None else self._spectrum._replace(center=center)
        s = _shifted(base, keyshift, speed, self._arguments["normalized"], self.mel_basis.shape[1])
        window = self.window
        if s.win_length != base.win_length:
            window_fn, periodic = self._arguments["window_fn"], self._arguments["periodic"]
            window = window_for(window if isinstance(window_fn, Tensor) else window_fn, x, s.win_length, periodic)
        return _run(x, window, self.mel_basis, s, self._output, base.n_fft)
