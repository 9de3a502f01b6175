"""Mel spectrograms: a function and modules on one fused op, from the signal to scaled bands."""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor

from ._arguments import _tensor
from ._frontend import output, run, signal, spectrum
from ._mel_module import MelModule
from ._shown import arguments_of
from ._window_functions import window_for
from .filters import mel_bank
from .typing import CenterPadMode, CenterTailPad, LogMelMode, MelMode, MelNorm, MelOutputScale, MelScale, WindowLike


def mel_spectrogram(
    x: Tensor,
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    window: Tensor | None = None,
    pad: int = 0,
    center: bool = True,
    pad_mode: CenterPadMode = "constant",
    power: float = 2.0,
    normalized: bool | str = False,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    norm: MelNorm = None,
    mel_scale: MelScale = "htk",
    output_scale: MelOutputScale = "db",
    log_amin: float = 1e-5,
    log_mode: LogMelMode = "clamp",
    log_scale: float | None = None,
    top_db: float | None = 80.0,
    mode: MelMode = "per_example",
    window_fn: WindowLike = torch.hann_window,
    mel_basis: Tensor | None = None,
    use_mps_kernels: bool = True,
) -> Tensor:
    """Mel spectrogram of a signal.

    One kernel reads the signal and writes the bands. Gradients flow to the signal, to `window` and to `mel_basis`, in
    every mode and to any order, and are finite at silence.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        sample_rate: in Hz.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames.
        win_length: samples of the window, centred in n_fft; default n_fft.
        window: (win_length,), in place of `window_fn`.
        pad: zeros before and after the signal, ahead of everything else.
        center: pad the signal by n_fft // 2 at each end, in `pad_mode`.
        pad_mode: "constant", "reflect", "replicate" or "circular".
        power: exponent of the magnitudes.
        normalized: True or "frame_length" divides magnitudes by sqrt(n_fft), "window" by the root of the window's
            energy.
        n_mels, f_min, f_max, norm, mel_scale: the bank, as for `melscale_fbanks`.
        output_scale: "linear", "log" or "db" (20 log10 for power 1, else 10 log10, of no less than 1e-10).
        log_amin: a > 0 of log_mode "clamp", ln(max(mel, a)), and "add", ln(mel + a).
        log_mode: "clamp", "add" or "log1p", ln(1 + log_scale * mel).
        log_scale: default 1 / log_amin.
        top_db: with "db", how far below the largest value of its group anything may lie; None for no limit.
        mode: the groups of `top_db`, as for `amplitude_to_db`.
        window_fn: function of win_length, periodic=, dtype= and device= (or of win_length alone), a name ("hann",
            "hamming", "rect", or any in torch.signal.windows), or the window itself (win_length,).
        mel_basis: (n_mels, n_fft // 2 + 1), in place of the bank; n_mels to mel_scale then do not count.
        use_mps_kernels: False computes in plain torch.

    Returns:
        (..., n_mels, n_frames); the bands of one frame are adjacent in memory.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit (it is a RuntimeError as well).
    """
    s = spectrum(
        n_fft,
        hop_length,
        win_length,
        normalized,
        center=center,
        pad_mode=pad_mode,
        pad=pad,
        power=power,
        use_mps_kernels=use_mps_kernels,
    )
    out = output(output_scale, power, log_amin, log_mode, log_scale, top_db, mode)
    x = signal(x)
    window = window_for(window_fn if window is None else _tensor("window", window), x, s.win_length)
    if mel_basis is None:
        bank = (n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm, mel_scale)
        mel_basis = mel_bank(*bank, dtype=x.dtype, device=x.device)
    return run(x, window, mel_basis, s, out)


class MelSpectrogramTransform(MelModule):
    """Mel spectrogram module: (..., T) to (..., n_mels, n_frames).

    The window and the bank are buffers (`window`, `mel_basis`) that are not in the state dict. They move with the
    module, stay in float32 when it is cast to half, and follow the dtype and device of the signal where they differ.

    Args:
        sample_rate to log_scale, top_db, mode, window_fn, use_mps_kernels: as for `mel_spectrogram`.
        periodic: False for a symmetric window.
        convention: "torchaudio" or "librosa", whose arithmetic makes the bank; see `melscale_fbanks`.
        padding: padding in place of that of `center`: samples at each end, or "same": (win_length - hop_length) // 2
            before the signal and the rest of it behind, which gives T // hop_length frames.
        center_tail_pad: "symmetric", or with pad_mode="constant" "minimal": ceil(T / hop_length) frames.
        drop_last_frame: leave out the last frame.
        preemphasis: c of x[t] - c x[t - 1], before padding.
        magnitude_eps: e of sqrt(|X|^2 + e) for power 1, of |X|^power + e for others.
        log_base: base of the logarithm of output_scale "log", default e.
        dynamic_range: the `top_db` of output_scale "log", in its units.
        affine: (gain, shift): log and db outputs y become gain * y + shift, after clipping.
        normalize: "per_feature": each band minus its mean over the frames, by its standard deviation + 1e-5.
    """

    output_scale: str

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
        pad: int = 0,
        center: bool = True,
        pad_mode: CenterPadMode = "constant",
        power: float = 2.0,
        normalized: bool | str = False,
        norm: MelNorm = None,
        mel_scale: MelScale = "htk",
        output_scale: MelOutputScale = "db",
        log_amin: float = 1e-5,
        log_mode: LogMelMode = "clamp",
        log_scale: float | None = None,
        top_db: float | None = 80.0,
        mode: MelMode = "per_example",
        window_fn: WindowLike = torch.hann_window,
        periodic: bool = True,
        convention: str = "torchaudio",
        padding: int | str | None = None,
        center_tail_pad: CenterTailPad = "symmetric",
        drop_last_frame: bool = False,
        preemphasis: float = 0.0,
        magnitude_eps: float = 0.0,
        log_base: float | None = None,
        dynamic_range: float | None = None,
        affine: tuple[float, float] = (1.0, 0.0),
        normalize: str | None = None,
        use_mps_kernels: bool = True,
    ) -> None:
        super().__init__(**arguments_of(MelSpectrogramTransform, locals()))

    @classmethod
    def compat(cls, **arguments: Any) -> CompatMelSpectrogramTransform:
        """The module with torchaudio's arguments and numbers."""
        return CompatMelSpectrogramTransform(**arguments)

    def _resolved(self, output_scale: str | None, to_db: bool | None) -> str:
        if to_db is not None:
            if output_scale is not None:
                raise ValueError("output_scale and to_db must not both be given")
            return "db" if to_db else "linear"
        return self.output_scale if output_scale is None else output_scale

    def forward(self, x: Tensor, *, output_scale: MelOutputScale | None = None, to_db: bool | None = None) -> Tensor:
        """Mel spectrogram (..., n_mels, n_frames) of x (..., T).

        Args:
            output_scale: "linear", "log" or "db" for this call; default that of the module.
            to_db: True for output_scale="db", False for "linear".
        """
        scale = self._resolved(output_scale, to_db)
        out = self._output if scale == self.output_scale else self._output_for(scale)
        return run(x, self.window, self.mel_basis, self._spectrum, out)

    def mel_spectrogram(
        self, x: Tensor, *, output_scale: MelOutputScale | None = None, to_db: bool | None = None
    ) -> Tensor:
        """The same as calling the module."""
        return self(x, output_scale=output_scale, to_db=to_db)

    def spectrogram(self, x: Tensor) -> Tensor:
        """Powers of the spectrum (..., n_fft // 2 + 1, n_frames), before the bank."""
        return self._powers(x)

    def get_compiled(
        self,
        *,
        output_scale: MelOutputScale | None = None,
        to_db: bool | None = None,
        backend: str | Callable[..., Any] = "aot_eager",
    ) -> Callable[[Tensor], Tensor]:
        """The module under torch.compile, one function per output scale, the same one each time.

        Args:
            output_scale, to_db: as for calling the module.
            backend: of torch.compile. "aot_eager" needs no compiler on the machine.
        """
        return self._compiled_method("__call__", backend, output_scale=self._resolved(output_scale, to_db))


class LogMelSpectrogramTransform(MelSpectrogramTransform):
    """Log-mel spectrogram module: `MelSpectrogramTransform` with output_scale "log" and power 1 by default."""

    def __init__(self, *, power: float = 1.0, **arguments: Any) -> None:
        for name in ("output_scale", "top_db"):
            if name in arguments:
                raise TypeError(f"LogMelSpectrogramTransform takes no {name}; MelSpectrogramTransform does")
        super().__init__(power=power, output_scale="log", top_db=None, **arguments)

    @classmethod
    def _of_preset(cls, arguments: dict[str, Any]) -> LogMelSpectrogramTransform:
        return cls(**{name: value for name, value in arguments.items() if name not in ("output_scale", "top_db")})

    def get_compiled(  # type: ignore[override]
        self, *, backend: str | Callable[..., Any] = "aot_eager"
    ) -> Callable[[Tensor], Tensor]:
        """The module under torch.compile, the same function each time; `backend` is torch.compile's."""
        return super().get_compiled(output_scale="log", backend=backend)


class CompatMelSpectrogramTransform(MelSpectrogramTransform):
    """torchaudio.transforms.MelSpectrogram: its arguments in its order, its defaults, its numbers.

    Keyword arguments add the scales of `MelSpectrogramTransform`; `top_db` clips as torchaudio.transforms.AmplitudeToDB
    does. The window and bank in a state dict of torchaudio's module are accepted and left alone.

    Args:
        win_length: default n_fft.
        hop_length: default win_length // 2.
        normalized: False, True or "window" (by the root of the window's energy), "frame_length" (by sqrt(n_fft)).
        wkwargs: keyword arguments of `window_fn`.
        onesided: without effect, as in torchaudio.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        pad: int = 0,
        n_mels: int = 128,
        window_fn: WindowLike = torch.hann_window,
        power: float = 2.0,
        normalized: bool | str = False,
        wkwargs: dict[str, Any] | None = None,
        center: bool = True,
        pad_mode: CenterPadMode = "reflect",
        onesided: bool | None = None,
        norm: MelNorm = None,
        mel_scale: MelScale = "htk",
        *,
        output_scale: MelOutputScale = "linear",
        log_amin: float = 1e-5,
        log_mode: LogMelMode = "clamp",
        log_scale: float | None = None,
        top_db: float | None = None,
        mode: MelMode = "torchaudio_compat",
        use_mps_kernels: bool = True,
    ) -> None:
        theirs = arguments_of(CompatMelSpectrogramTransform, locals())
        arguments = {name: value for name, value in theirs.items() if name not in ("onesided", "wkwargs")}
        arguments["hop_length"] = (
            (n_fft if win_length is None else win_length) // 2 if hop_length is None else hop_length
        )
        arguments["normalized"] = "window" if normalized is True else normalized
        if wkwargs and callable(window_fn):
            arguments["window_fn"] = lambda length: window_fn(length, **wkwargs)  # noqa: E731
        super().__init__(**arguments)
        self._remember(theirs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("spectrogram.window", "mel_scale.fb"):
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *rest)
