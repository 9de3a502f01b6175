"""Configurations of SpectralTransform and its transform and inverse in numpy, in float64, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MINIMAL = {"center_pad_mode": "constant", "center_tail_pad": "minimal"}

# arguments of the class, and shapes of signals
CASES: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"n_fft": 512, "hop_length": 128}, (8000,)),
    ({"n_fft": 1024, "hop_length": 256}, (2, 8000)),
    ({"n_fft": 256, "hop_length": 64, "normalized": True}, (4, 5001)),
    ({"n_fft": 512, "hop_length": 200}, (2, 3, 3000)),
    ({"n_fft": 512, "hop_length": 128, "center_pad_mode": "constant"}, (4000,)),
    ({"n_fft": 512, "hop_length": 128, "center_pad_mode": "constant", "normalized": True}, (2, 100)),
    ({"n_fft": 400, "hop_length": 160, "center_pad_mode": "replicate"}, (2, 3000)),
    ({"n_fft": 400, "hop_length": 100, "center_pad_mode": "circular"}, (2, 200)),
    ({"n_fft": 512, "hop_length": 128, **MINIMAL}, (2, 4000)),
    ({"n_fft": 512, "hop_length": 128, **MINIMAL}, (3, 4096)),
    ({"n_fft": 512, "hop_length": 128, **MINIMAL}, (4097,)),
    ({"n_fft": 512, "hop_length": 128, **MINIMAL}, (2, 77)),
    ({"n_fft": 512, "hop_length": 500, **MINIMAL}, (2, 4001)),  # the last frame ends before the signal does
    ({"n_fft": 399, "hop_length": 97, "normalized": True, **MINIMAL}, (2, 2, 3001)),
    ({"n_fft": 1218, "hop_length": 300, "win_length": 1000, **MINIMAL}, (6000,)),
    ({"n_fft": 512, "hop_length": 128, "center": False}, (2, 4000)),
    ({"n_fft": 512, "hop_length": 128, "center": False}, (2, 512)),
    ({"n_fft": 512, "hop_length": 128, "center": False, "normalized": True}, (2, 300)),
    ({"n_fft": 399, "hop_length": 100, "center": False, **MINIMAL}, (1, 2, 399 + 350)),
    ({"n_fft": 401, "hop_length": 100}, (2, 2222)),
    ({"n_fft": 509, "hop_length": 127, "center_pad_mode": "constant"}, (1500,)),
    ({"n_fft": 512, "hop_length": 160, "win_length": 400}, (2, 3000)),
    ({"n_fft": 512, "hop_length": 128, "win_length": 301, "window_fn": "hamming"}, (2, 3000)),
    ({"n_fft": 512, "hop_length": 128, "window_fn": "hamming", "periodic": False}, (2, 3000)),
    ({"n_fft": 512, "hop_length": 512, "window_fn": "rect"}, (2, 3000)),
    ({"n_fft": 512, "hop_length": 128, "window_fn": "blackman", "periodic": False}, (2, 3000)),
    ({"n_fft": 512, "hop_length": 128, "window_fn": torch.bartlett_window}, (2, 3000)),
    ({"n_fft": 2048, "hop_length": 441}, (2, 30000)),
    ({"n_fft": 4096, "hop_length": 1024}, (20000,)),
    ({"n_fft": 64, "hop_length": 1, "center_pad_mode": "constant"}, (2, 200)),
    ({"n_fft": 16, "hop_length": 3, **MINIMAL}, (2, 1)),
    ({"n_fft": 2, "hop_length": 1, "window_fn": "rect"}, (2, 9)),
    ({"n_fft": 1, "hop_length": 1, "window_fn": "rect"}, (2, 9)),
]
# few sizes: each is a shader to compile
ON_EVERY_ROUTE = [CASES[number] for number in (0, 2, 4, 5, 8, 10, 11, 12, 15, 17)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Noise with a tone and a chirp, as float64."""
    time = np.arange(shape[-1]) / 8000.0
    sound = np.random.default_rng(seed).standard_normal(shape)
    sound += 0.5 * np.sin(2 * np.pi * 440.0 * time) + scipy.signal.chirp(time, 100.0, time[-1] + 1.0, 3000.0)
    return torch.from_numpy(sound)


def padding(transform: Any, length: int) -> tuple[int, int, str, int]:
    """Samples before and after the signal, numpy's mode and the number of frames, by the table of the class."""
    n_fft, hop = transform.n_fft, transform.hop_length
    if not transform.center:
        return 0, max(0, n_fft - length), "constant", max(1, (length - n_fft) // hop + 1)
    half = n_fft // 2
    mode = NUMPY_MODES[transform.center_pad_mode]
    if transform.center_tail_pad == "symmetric":
        return half, half, mode, (length + 2 * half - n_fft) // hop + 1
    frames = max(1, int(np.ceil(length / hop)))
    return half, max(0, (frames - 1) * hop - half + n_fft - length), mode, frames


def window_of(transform: Any) -> np.ndarray:
    return transform.window.cpu().double().numpy()


def forward(transform: Any, x: Tensor) -> Tensor:
    """(T,) or (B, T) float64 to (..., F, N)."""
    left, right, mode, frames = padding(transform, x.shape[-1])
    n_fft, hop, window = transform.n_fft, transform.hop_length, window_of(transform)
    padded = np.pad(x.numpy(), [(0, 0)] * (x.dim() - 1) + [(left, right)], mode=mode)
    columns = [np.fft.rfft(padded[..., m * hop : m * hop + n_fft] * window) for m in range(frames)]
    spectrum = np.stack(columns, -1) * (n_fft**-0.5 if transform.normalized else 1.0)
    return torch.from_numpy(spectrum)


def inverse(transform: Any, z: Tensor, length: int | None) -> tuple[Tensor, Tensor]:
    """(..., F, N) to (..., L), and the envelope (L,) it was divided by (1 where that vanishes or ends)."""
    n_fft, hop, window = transform.n_fft, transform.hop_length, window_of(transform)
    spectrum = z.numpy()[..., : n_fft // 2 + 1, :] * (n_fft**0.5 if transform.normalized else 1.0)
    n_frames = spectrum.shape[-1]
    full = n_fft + hop * (n_frames - 1)
    total, envelope = np.zeros((*spectrum.shape[:-2], full)), np.zeros(full)
    for m in range(n_frames):
        total[..., m * hop : m * hop + n_fft] += np.fft.irfft(spectrum[..., m], n_fft) * window
        envelope[m * hop : m * hop + n_fft] += window**2
    reached = envelope > 1e-11
    envelope = np.where(reached, envelope, 1.0)
    signal = np.where(reached, total / envelope, 0.0)
    start = n_fft // 2 if transform.center else 0
    stop = full - start if length is None else start + length
    missing = max(0, stop - full)
    signal = np.pad(signal[..., start:stop], [(0, 0)] * (signal.ndim - 1) + [(0, missing)])
    return torch.from_numpy(signal), torch.from_numpy(np.pad(envelope[start:stop], (0, missing), constant_values=1.0))


def name(case: tuple[dict[str, Any], tuple[int, ...]]) -> str:
    arguments, shape = case
    words = [f"{key}={getattr(value, '__name__', value)}" for key, value in arguments.items()]
    return "-".join([*words, "x".join(map(str, shape))])
