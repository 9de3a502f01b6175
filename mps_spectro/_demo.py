"""`mps-spectro demo`: one recording through stft and istft, beside torch, with a picture and the round trip."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import Callable

import torch

from . import _demo_files as files
from ._backend import use_backend
from ._diagnostics import diagnostics
from ._runtime import RuntimeUnavailable
from .istft import istft
from .stft import stft

N_FFT, HOP = 2048, 512
_HOST_BUDGET = 60.0  # seconds that the shaders may take on the CPU before the recording is cut
_TOLERANCE = 1e-5  # of the largest value; float32 transforms of this size are a few 1e-7 apart
_ABOUT = {
    "metal": "the Metal shaders, compiled at run time",
    "cuda": "the Metal shaders, translated to CUDA and compiled at run time",
    "host": "the Metal shaders, compiled by the C++ compiler: for checking them on any machine, not for speed",
    "torch": "plain torch",
}
_DEVICE = {"metal": "mps", "cuda": "cuda", "host": "cpu", "torch": "cpu"}

DemoError = files.DemoError


def run(audio: str | None, output: str, backend: str = "auto", seconds: float | None = None) -> None:
    """Runs the demonstration and prints what happened.

    Args:
        audio: path of a sound file, None for a synthesised recording.
        output: folder for the picture and the round trip, made when missing.
        backend: "auto" takes the best one of this machine, else one of `use_backend`'s names.
        seconds: use only the beginning of the recording.

    Raises:
        DemoError: the recording cannot be read, the backend cannot run here, or its numbers are not torch's.
    """
    signal, rate, name = files.load(audio) if audio else files.synthesise()
    _line("recording", f"{name}: {_channels(signal)}, {rate} Hz, {signal.shape[-1] / rate:.1f} s")
    if seconds is not None:
        signal = signal[:, : max(1, round(seconds * rate))]
        _line("", f"the first {signal.shape[-1] / rate:.1f} s of it, as asked")
    if signal.shape[-1] <= N_FFT // 2:
        raise DemoError(f"the recording must be longer than {N_FFT // 2} samples, got {signal.shape[-1]}")

    backend = _choose(backend)
    signal = signal.to(_DEVICE[backend])
    window = torch.hann_window(N_FFT, device=signal.device)
    _line("device", _device_name(signal.device))
    # on a GPU "auto" lets a failing shader fall back to torch, and the counters below say so
    with use_backend("auto" if backend in ("metal", "cuda") else backend):
        if backend == "host":
            signal = _affordable(signal, window, rate)
        diagnostics(reset=True)
        ran, apart = _compare(signal, window, backend)
        spectrum = _forward(signal, window)
        restored = _inverse(spectrum, window, signal.shape[-1])
    _quality(signal, restored)
    for key, value in diagnostics().items():
        if key != "caches":
            _line("diagnostics" if key == "kernel_calls" else "", f"{key} {value}")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(name).stem
    wave_path = folder / f"{stem}-roundtrip.wav"
    files.write_wav(wave_path, restored.cpu(), rate)
    _line("wrote", str(wave_path))
    picture = folder / f"{stem}-spectrogram.png"
    title = f"{name}   stft {N_FFT}/{HOP} Hann, {ran} on {signal.device.type}"
    missing = files.write_picture(picture, spectrum.abs().cpu(), rate, HOP, title)
    _line("", missing or str(picture))
    if apart > _TOLERANCE:
        raise DemoError(f"{ran} disagrees with torch; please report what `mps-spectro doctor --json` prints")


def _choose(backend: str) -> str:
    """The backend to run: the asked one, else the best that works here."""
    if backend == "auto":
        if torch.backends.mps.is_available():
            return "metal"
        if torch.cuda.is_available():
            return "cuda"
        return "torch" if _why_not_host() else "host"
    if backend == "metal" and not torch.backends.mps.is_available():
        raise DemoError("backend 'metal' needs an MPS device, and torch finds none")
    if backend == "cuda" and not torch.cuda.is_available():
        raise DemoError("backend 'cuda' needs a CUDA device, and torch finds none")
    if backend == "host" and (why := _why_not_host()):
        raise DemoError(f"backend 'host' cannot run here: {why}")
    return backend


def _why_not_host() -> str | None:
    probe = torch.ones(1, 2 * N_FFT)
    try:
        with use_backend("host"):
            _forward(probe, torch.hann_window(N_FFT))
    except RuntimeUnavailable as why:
        return str(why)
    return None


def _forward(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return stft(signal, N_FFT, HOP, window=window, return_complex=True)


def _inverse(spectrum: torch.Tensor, window: torch.Tensor, length: int) -> torch.Tensor:
    return istft(spectrum, N_FFT, HOP, window=window, length=length)


def _torch_forward(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.stft(signal, N_FFT, HOP, window=window, return_complex=True)


def _torch_inverse(spectrum: torch.Tensor, window: torch.Tensor, length: int) -> torch.Tensor:
    return torch.istft(spectrum, N_FFT, HOP, window=window, length=length)


def _affordable(signal: torch.Tensor, window: torch.Tensor, rate: int) -> torch.Tensor:
    """Cuts the recording to what the host runtime can do in about a minute, and says so."""
    probe = signal[:, : min(rate, signal.shape[-1])]
    _inverse(_forward(probe, window), window, probe.shape[-1])  # compiles
    start = time.perf_counter()
    _inverse(_forward(probe, window), window, probe.shape[-1])
    cost = (time.perf_counter() - start) / probe.shape[-1]
    affordable = max(rate, int(_HOST_BUDGET / (6 * cost)))  # _compare and run do it six times
    if signal.shape[-1] <= affordable:
        return signal
    _line("", f"only the first {affordable / rate:.1f} s from here on: the host runtime is slow")
    return signal[:, :affordable]


def _compare(signal: torch.Tensor, window: torch.Tensor, backend: str) -> tuple[str, float]:
    """Times both transforms beside torch's on the same device.

    Returns:
        The backend that really ran, and the largest difference from torch relative to the largest value.
    """
    length = signal.shape[-1]
    ours = _forward(signal, window)
    back = _inverse(ours, window, length)
    ran = backend if diagnostics()["backend_calls"].get(backend) else "torch"
    _line("backend", f"{ran}: {_ABOUT[ran]}")
    if ran != backend:
        _line("", f"{backend} did not run: {diagnostics()['torch_route']}")
    _line("transform", f"n_fft {N_FFT}, hop {HOP}, periodic Hann")
    _line("", f"{_shape(signal)} -> {_shape(ours)} -> {_shape(back)}")

    runs = 3 if backend == "host" else 7
    pairs: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "stft": (lambda: _forward(signal, window), lambda: _torch_forward(signal, window)),
        "istft": (lambda: _inverse(ours, window, length), lambda: _torch_inverse(ours, window, length)),
    }
    for label, calls in pairs.items():
        here, there = (_milliseconds(call, runs, signal.device) for call in calls)
        _line(
            "time" if label == "stft" else "",
            f"{label:5}  {ran} {here:9.2f} ms   torch {there:9.2f} ms   (median of {runs})",
        )
    forward = _relative(ours, _torch_forward(signal, window))
    inverse = _relative(back, _torch_inverse(ours, window, length))
    _line("from torch", f"stft   largest difference {forward:.1e} of the largest value")
    _line("", f"istft  largest difference {inverse:.1e} of the largest value")
    return ran, max(forward, inverse)


def _milliseconds(call: Callable[[], torch.Tensor], runs: int, device: torch.device) -> float:
    """Median time of a call that is warm and has finished on the device."""
    times = []
    for _ in range(runs + 1):
        _synchronize(device)
        start = time.perf_counter()
        call()
        _synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def _synchronize(device: torch.device) -> None:
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "cuda":
        torch.cuda.synchronize()


def _quality(signal: torch.Tensor, restored: torch.Tensor) -> None:
    # float64 on the CPU: MPS has none
    wanted, got = signal.cpu().double(), restored.cpu().double()
    noise = (got - wanted).square().sum().item()
    power = wanted.square().sum().item()
    snr = f"{10 * math.log10(power / noise):.1f} dB" if noise and power else "not defined"
    _line("round trip", f"largest error {(got - wanted).abs().max().item():.1e}, signal to noise {snr}")


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    apart = ((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(torch.float32).tiny)).item()
    return math.inf if math.isnan(apart) else apart


def _channels(signal: torch.Tensor) -> str:
    return {1: "mono", 2: "stereo"}.get(signal.shape[0], f"{signal.shape[0]} channels")


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _line(label: str, text: str) -> None:
    print(f"{label:12}{text}", flush=True)
