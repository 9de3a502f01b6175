"""Signals, configurations and measures of the tests of descriptors, chroma and their bundle."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

# arguments of our functions; librosa calls some of them otherwise, see `librosas`
CASES: list[dict[str, Any]] = [
    {},
    {"n_fft": 1024},
    {"n_fft": 1024, "hop_length": 240, "sample_rate": 24000},
    {"n_fft": 512, "hop_length": 128},
    {"n_fft": 400, "hop_length": 160, "sample_rate": 16000},
    {"n_fft": 512, "hop_length": 160, "win_length": 400, "sample_rate": 16000},
    {"n_fft": 4096, "hop_length": 1024, "sample_rate": 44100},
    {"n_fft": 2048, "hop_length": 441, "sample_rate": 44100},
    {"n_fft": 1218, "hop_length": 300, "win_length": 1000},
    {"n_fft": 1149, "hop_length": 256, "sample_rate": 32000},
    {"n_fft": 2047, "hop_length": 512},
    {"n_fft": 1000, "hop_length": 250, "sample_rate": 48000},
    {"n_fft": 256, "hop_length": 100, "sample_rate": 12800},
    {"n_fft": 1024, "hop_length": 1024, "sample_rate": 15999},
    {"window_fn": "hamming", "n_fft": 1024},
    {"window_fn": "blackman", "n_fft": 1024, "win_length": 800},
    {"window_fn": "rect", "n_fft": 512},
    {"window_fn": torch.hann_window(600), "win_length": 600, "n_fft": 1024, "hop_length": 200},
    {"center_pad_mode": "reflect"},
    {"center_pad_mode": "replicate", "n_fft": 1024},
    {"center_pad_mode": "circular", "n_fft": 1024},
    {"center": False},
    {"center": False, "n_fft": 800, "hop_length": 200, "win_length": 600},
    {"n_fft": 2048, "hop_length": 512, "sample_rate": 22050.5},
]
_WINDOWS = {"rect": "boxcar"}


def librosas(x: Tensor, case: dict[str, Any], dtype: str = "float64") -> dict[str, Any]:
    """The same signal and arguments as librosa calls them."""
    names = {"sample_rate": "sr", "center_pad_mode": "pad_mode", "window_fn": "window"}
    out = {names.get(name, name): value for name, value in case.items()}
    window = out.get("window", "hann")
    out["window"] = window.double().numpy() if isinstance(window, Tensor) else _WINDOWS.get(window, window)
    out["y"] = x.detach().cpu().double().numpy().astype(dtype)
    if out.get("pad_mode") == "replicate":
        out["pad_mode"] = "edge"
    elif out.get("pad_mode") == "circular":  # which it does not know
        pad = case.get("n_fft", 2048) // 2
        out.update(y=np.pad(out["y"], pad, mode="wrap"), center=False, pad_mode="constant")
    return out


def magnitudes_of_torch(x: Tensor, **sizes: int) -> np.ndarray:
    """The magnitudes of plain torch, in its own precision."""
    n_fft = sizes.get("n_fft", 2048)
    hop_length = sizes.get("hop_length", 512)
    window = torch.hann_window(n_fft, dtype=x.dtype)
    return torch.stft(x, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True).abs().numpy()


def rate(case: dict[str, Any]) -> float:
    return case.get("sample_rate", 22050)


@functools.lru_cache(maxsize=64)
def signal(sample_rate: float, kind: str = "mixture", seed: int = 0) -> Tensor:
    """0.4 s: a tone, a chirp and noise, a part of it silent; or one of them, or an edge case."""
    t = torch.arange(int(0.4 * sample_rate), dtype=torch.float64) / sample_rate
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tone = torch.sin(2 * math.pi * 440.0 * t)
    chirp = torch.sin(2 * math.pi * (100.0 * t + 0.5 * (0.45 * sample_rate - 100.0) / 0.4 * t.square()))
    x = {
        "mixture": 0.3 * tone + 0.2 * chirp + 0.1 * noise,
        "noise": noise,
        "tone": tone,
        "chirp": chirp,
        "silence": 0.0 * t,
        "dc": 0.0 * t + 0.5,
        "clipped": (20.0 * chirp).clamp(-1.0, 1.0),
        "faint": 1e-7 * noise,
        "loud": 3e4 * (tone + noise),
        "impulse": (torch.arange(len(t)) == len(t) // 2).double(),
    }[kind].float()
    if kind == "mixture":
        x[len(t) // 3 : len(t) // 2] = 0.0
    return x


def error(got: Tensor, expected: np.ndarray | Tensor, floor: float = 0.0) -> float:
    """Largest error in parts of the expected value, of which no smaller one than `floor` counts; shapes must agree."""
    expected = torch.as_tensor(expected).detach().cpu().double()
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    assert got.isfinite().all()
    difference = (got.detach().cpu().double() - expected).abs()
    return (difference / expected.abs().clamp(min=max(floor, 1e-300))).max().item()
