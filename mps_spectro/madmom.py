"""The logarithmic filtered spectrogram of madmom, the input of its beat, onset and chord models and of all-in-one's."""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _backend, _kernels
from ._arguments import ArgumentError, _tensor, choice, flag, integer
from ._coverage import traced
from ._frontend import _kept, run, signal, spectrum
from ._window_functions import make_window
from .filtered import plus_one
from .log_triangular import log_triangular_rows

BACKENDS = ("auto", "kernel", "torch", "madmom")


def madmom_log_spectrogram(
    x: Tensor,
    *,
    sample_rate: float = 44100,
    frame_size: int = 2048,
    fps: float = 100,
    num_bands: int = 12,
    fmin: float = 30.0,
    fmax: float = 17000.0,
    fref: float = 440.0,
    norm_filters: bool = True,
    unique_filters: bool = True,
    mul: float = 1.0,
    fft_size: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """log10(mul * S + 1) of the magnitudes of a signal's frames, summed to logarithmically spaced bands S.

    The values of madmom.audio.spectrogram.LogarithmicFilteredSpectrogram: frame m is centred on sample
    floor(m * sample_rate / fps), zeros lie around the signal, the window is a symmetric Hann window, and the bank is
    that of `log_triangular_fbanks` for fft_size // 2 bins. The defaults are those of madmom's trackers and all-in-one:
    81 bands, 100 frames per second. Gradients flow to the signal and are finite at silence.

    Args:
        x: (..., T), stems or channels each on their own. Half and bfloat16 are computed in float32; integers are
            divided by the largest value of their type, as madmom does.
        sample_rate: of the signal, in Hz.
        frame_size: samples of a frame.
        fps: frames per second. Where sample_rate / fps is not whole, the frames are copied out of the signal.
        num_bands: bands per octave.
        fmin, fmax: bounds of the bands' centres, in Hz.
        fref: a frequency on which a band may be centred, in Hz.
        norm_filters: bands of area 1 instead of height 1.
        unique_filters: bands that the low bins cannot tell apart are one.
        mul: factor of the bands before the logarithm.
        fft_size: size of the Fourier transform, at least frame_size, which is its default.
        backend: "auto" takes the kernels for tensors on mps and cuda (or as `use_backend` says) and torch on all other
            devices. "kernel" and "torch" take what they name. "madmom" calls madmom itself, if it is installed, and
            has no gradient.

    Returns:
        (..., n_frames, n_bands), n_frames = ceil(T * fps / sample_rate): frames before bands, as in madmom, and
        contiguous.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a value or a size that does not fit; no samples; backend="kernel" where no kernel can run (it is a
            RuntimeError as well).
        ImportError: backend="madmom" without madmom.
    """
    choice("backend", backend, BACKENDS)
    numbers = {"sample_rate": sample_rate, "fps": fps, "num_bands": integer("num_bands", num_bands)}
    for name, value in {**numbers, "fmin": fmin, "fref": fref, "mul": mul}.items():
        if not 0 < value < math.inf:
            raise ArgumentError(f"{name} must be positive and finite, got {value}")
    if not fmin < fmax < math.inf:
        raise ArgumentError(f"fmax must be above fmin={fmin} and finite, got {fmax}")
    flag("norm_filters", norm_filters)
    flag("unique_filters", unique_filters)
    if integer("frame_size", frame_size) < 2:
        raise ArgumentError(f"frame_size must be at least 2, got {frame_size}")
    n_fft = frame_size if fft_size is None else integer("fft_size", fft_size)
    if n_fft < frame_size:
        raise ArgumentError(f"fft_size must be at least frame_size={frame_size}, got {fft_size}")
    hop = sample_rate / fps
    if hop < 1:
        raise ArgumentError(f"fps must not exceed sample_rate={sample_rate}, got {fps}")
    if _tensor("x", x).dim() and x.shape[-1] == 0:
        raise ArgumentError("x must have at least one sample, got none")
    y = signal(_floating(x))
    if backend == "madmom":
        filters: dict[str, Any] = {"num_bands": num_bands, "fmin": fmin, "fmax": fmax, "fref": fref, "mul": mul}
        filters.update(norm_filters=norm_filters, unique_filters=unique_filters)
        return _by_madmom(x, sample_rate=sample_rate, frame_size=frame_size, fps=fps, fft_size=fft_size, **filters)
    if backend == "kernel" and not traced():
        _require_kernel(y, n_fft)
    bank = log_triangular_rows(
        n_fft,
        sample_rate,
        num_bands,
        f_min=fmin,
        f_max=fmax,
        f_ref=fref,
        norm_filters=norm_filters,
        unique_bins=unique_filters,
        dtype=y.dtype,
        device=y.device,
    )
    window = make_window("hann", frame_size, False, y.dtype, y.device)
    if n_fft > frame_size:
        window = _kept(window, _placed, n_fft)
    whole = hop == int(hop)
    s = spectrum(
        n_fft,
        int(hop) if whole else n_fft,
        None,
        center=whole,
        pad_mode="constant",
        center_tail_pad="minimal",
        power=1.0,
        use_mps_kernels=backend != "torch",
    )
    return run(y if whole else _side_by_side(y, hop, n_fft), window, bank, s, plus_one(mul)).transpose(-1, -2)


def _floating(x: Tensor) -> Tensor:
    if x.dtype == torch.bool or x.is_floating_point() or x.is_complex():
        return x
    return x.float() / torch.iinfo(x.dtype).max


def _placed(window: Tensor, n_fft: int) -> Tensor:
    """The window within n_fft samples so that the middle of both is the same sample, which `full_size` does not do."""
    before = n_fft // 2 - window.shape[0] // 2
    return F.pad(window, (before, n_fft - window.shape[0] - before))


def _side_by_side(x: Tensor, hop: float, n_fft: int) -> Tensor:
    """Frames centred on floor(m * hop), one after the other, so that they are n_fft samples apart."""
    n_frames = math.ceil(x.shape[-1] / hop)
    starts = (torch.arange(n_frames, dtype=torch.float64, device="cpu") * hop).long().to(x.device)
    index = starts[:, None] + torch.arange(n_fft, device=x.device)
    return F.pad(x, (n_fft // 2, n_fft - n_fft // 2)).index_select(-1, index.flatten())


def _require_kernel(x: Tensor, n_fft: int) -> None:
    backend = _backend.select(x.device.type)
    why = f"{x.device.type} tensor" if backend == "torch" else _kernels.refusal(x.dtype, n_fft, 1)
    if why is not None:
        raise ArgumentError(
            f"backend='kernel' must have a float32 signal on mps or cuda, or on the CPU inside use_backend('host'), "
            f"and a frame that fits a kernel: {why}; backend='auto' takes torch there"
        )


# --- what needs other libraries --------------------------------------------------------------------------------------


# the release of madmom on PyPI is older than the versions of Python and numpy that are in use
_SOURCES = {"madmom": "git+https://github.com/CPJKU/madmom", "numpy": "numpy"}


def _library(name: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as why:
        package = name.split(".")[0]
        raise ImportError(
            f"{wanted_by} needs {package}: pip install {_SOURCES[package]} ({why})", name=package
        ) from why


def _by_madmom(x: Tensor, *, sample_rate: float, **given: Any) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled():
        raise ArgumentError("x must not require grad with backend='madmom', which has no gradient; use x.detach()")
    spectrogram = _library("madmom.audio.spectrogram", "backend='madmom'").LogarithmicFilteredSpectrogram
    make_signal = _library("madmom.audio.signal", "backend='madmom'").Signal
    host = x.detach().to("cpu", x.dtype if x.dtype == torch.float64 or not x.is_floating_point() else torch.float32)
    rows = [
        torch.from_numpy(spectrogram(make_signal(row.numpy(), sample_rate=sample_rate), **given).__array__())
        for row in host.reshape(-1, x.shape[-1])
    ]
    return torch.stack(rows).reshape(*x.shape[:-1], *rows[0].shape).to(x.device)


def save_log_spectrogram(path: str | os.PathLike[str], spectrogram: Tensor) -> None:
    """Writes a spectrogram as one .npy file, as numpy.save does; needs numpy.

    Args:
        path: of the file; ".npy" is appended where it is missing.
        spectrogram: any real tensor, usually (stems, n_frames, n_bands). bfloat16, which numpy lacks, becomes float32.

    Raises:
        TypeError: no real tensor.
        ImportError: numpy is missing.
    """
    if _tensor("spectrogram", spectrogram).is_complex():
        raise TypeError(f"spectrogram must be real, got {spectrogram.dtype}")
    numpy = _library("numpy", "save_log_spectrogram")
    host = spectrogram.detach().cpu()
    numpy.save(path, (host.float() if host.dtype == torch.bfloat16 else host).numpy())
