"""Configurations and signals of the tests of cepstra and onset strength, and what librosa calls their arguments."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

# arguments that all functions on mel spectrograms in decibels share
CASES: list[dict[str, Any]] = [
    {},
    {"n_fft": 1024},
    {"n_fft": 1024, "hop_length": 240, "sample_rate": 24000, "n_mels": 40, "f_max": 12000.0},
    {"n_fft": 400, "hop_length": 160, "sample_rate": 16000, "n_mels": 40},
    {"n_fft": 512, "hop_length": 160, "win_length": 400, "sample_rate": 16000, "n_mels": 40, "f_min": 20.0},
    {"n_fft": 2048, "hop_length": 441, "sample_rate": 44100},
    {"n_fft": 4096, "hop_length": 1024, "sample_rate": 44100, "n_mels": 256},
    {"n_fft": 1218, "hop_length": 300, "win_length": 1000, "n_mels": 80},
    {"n_fft": 1149, "hop_length": 256, "sample_rate": 32000, "n_mels": 64},
    {"n_fft": 2047, "hop_length": 512},
    {"n_fft": 1000, "hop_length": 250, "sample_rate": 48000, "n_mels": 64, "mel_scale": "htk"},
    {"n_fft": 256, "hop_length": 100, "sample_rate": 8000, "n_mels": 23, "mel_scale": "htk", "norm": None},
    {"n_fft": 1024, "hop_length": 1024, "sample_rate": 15999, "n_mels": 48},
    {"n_fft": 2048, "hop_length": 3000},
    {"n_fft": 1024, "hop_length": 77},
    {"sample_rate": 22050.5},
    {"sample_rate": 44100, "hop_length": 441, "n_mels": 12, "f_max": 180.0},
    {"n_mels": 96, "f_min": 32.7, "f_max": 8000.0, "mel_scale": "htk"},
    {"norm": None},
    {"mel_scale": "htk"},
    {"power": 1.0},
    {"power": 1.5, "n_fft": 1024},
    {"power": 3.0},
    {"window_fn": "hamming", "n_fft": 1024, "n_mels": 64},
    {"window_fn": "blackman", "win_length": 1600},
    {"window_fn": "rect", "n_fft": 1024, "n_mels": 64},
    {"window_fn": torch.hann_window(600, dtype=torch.float64), "win_length": 600, "hop_length": 200},
    {"center_pad_mode": "reflect"},
    {"center_pad_mode": "replicate", "n_fft": 1024},
    {"center_pad_mode": "reflect", "n_fft": 400, "hop_length": 160, "win_length": 320, "n_mels": 40},
]
_NAMES = {
    "sample_rate": "sr", "f_min": "fmin", "f_max": "fmax", "mel_scale": "htk", "window_fn": "window",
    "center_pad_mode": "pad_mode",
}  # fmt: skip
_VALUES = {
    "mel_scale": lambda scale: scale == "htk",
    "center_pad_mode": lambda mode: mode.replace("replicate", "edge"),
    "window_fn": lambda window: window.numpy() if isinstance(window, Tensor) else window.replace("rect", "boxcar"),
}


def librosas(case: dict[str, Any]) -> dict[str, Any]:
    """The same arguments as librosa calls them."""
    return {_NAMES.get(name, name): _VALUES.get(name, lambda v: v)(value) for name, value in case.items()}


def rate(case: dict[str, Any]) -> float:
    return case.get("sample_rate", 22050)


KINDS = ("mixture", "noise", "tone", "chirp", "silence", "dc", "clipped", "faint", "loud", "impulse", "late")


@functools.lru_cache(maxsize=64)
def signal(sample_rate: float, kind: str = "mixture", seed: int = 0) -> Tensor:
    """0.5 s in float32. Nobody may write to it."""
    t = torch.arange(int(0.5 * sample_rate), dtype=torch.float64) / sample_rate
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tone = torch.sin(2 * math.pi * 440.0 * t)
    chirp = torch.sin(2 * math.pi * (50.0 * t + 0.45 * sample_rate * t.square()))
    mixture = 0.3 * tone + 0.2 * chirp + 0.1 * noise
    return {
        "mixture": mixture * (1.0 + (10.0 * t).floor() % 2),
        "noise": noise,
        "tone": tone,
        "chirp": chirp,
        "silence": 0.0 * t,
        "dc": 0.0 * t + 0.5,
        "clipped": (20.0 * chirp).clamp(-1.0, 1.0),
        "faint": 1e-6 * noise,
        "loud": 3e4 * mixture,
        "impulse": (torch.arange(len(t)) == len(t) // 3).double(),
        "late": mixture * (t > 0.3),
    }[kind].float()
