"""Grids, references and measures of the front-end tests and of scripts/frontend_parity.py."""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = 2e-6  # largest error over the largest value
LOGARITHMIC = 1e-4  # largest error, in dB or nepers

RATES = (8000, 11025, 16000, 22050, 24000, 44100)
SIZES = (400, 512, 1024, 1218, 2048)
SCALES = ("htk", "slaney")
NORMS = (None, "slaney")
POWERS = (1.0, 2.0, 1.5)
NORMALIZED = (False, True, "window", "frame_length")
SHAPES = ((), (2,), (2, 3), (2, 1, 2))


def grid() -> Iterator[dict[str, Any]]:
    """Arguments of torchaudio.transforms.MelSpectrogram, and the leading dimensions of the signal."""
    for number, (rate, n_fft, scale, norm, power, normalized) in enumerate(
        itertools.product(RATES, SIZES, SCALES, NORMS, POWERS, NORMALIZED)
    ):
        yield {
            "sample_rate": rate,
            "n_fft": n_fft,
            "hop_length": n_fft // 4,
            "win_length": n_fft if number % 3 else n_fft * 3 // 4,
            "n_mels": (40, 64, 80)[number % 3],
            "f_min": (0.0, 30.0)[number % 2],
            "mel_scale": scale,
            "norm": norm,
            "power": power,
            "normalized": normalized,
            "shape": SHAPES[number % len(SHAPES)],
        }


def sample(count: int) -> list[dict[str, Any]]:
    """`count` cases spread over the grid."""
    cases = list(grid())
    # a step without common factors with the sizes of the axes, so that every value of every axis comes up
    return [cases[i * 461 % len(cases)] for i in range(count)]


def name(value: Any) -> str:
    """Of a test's parameter; the same in every process."""
    if isinstance(value, dict):
        return "-".join(f"{key}={name(entry)}" for key, entry in value.items()) or "default"
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}".replace("torch.", "")
    return getattr(value, "__name__", None) or str(value)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signal(case: dict[str, Any]) -> Tensor:
    return noise(*case["shape"], 3 * case["n_fft"] + 777, seed=case["n_fft"])


def relative(got: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value; shapes must agree."""
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    expected = expected.detach().cpu().double()
    return ((got.detach().cpu().double() - expected).abs().max() / expected.abs().max()).item()


def absolute(got: Tensor, expected: Tensor) -> float:
    """Largest error; shapes must agree."""
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    return (got.detach().cpu().double() - expected.detach().cpu().double()).abs().max().item()


def librosa_bank(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None, htk: bool = False) -> Tensor:
    librosa = __import__("librosa")
    bank = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=htk, dtype=np.float64)
    return torch.from_numpy(bank)


# --- front ends of projects, in float64, written from their definitions -----------------------------------------------


def whisper(x: Tensor, n_mels: int = 80) -> Tensor:
    x = x.double()
    window = torch.hann_window(400).double()
    spec = torch.stft(x, 400, 160, window=window, return_complex=True)
    power = spec[..., :-1].abs() ** 2
    log = torch.clamp(librosa_bank(16000, 400, n_mels, 0.0, None) @ power, min=1e-10).log10()
    log = torch.maximum(log, log.max() - 8.0)
    return (log + 4.0) / 4.0


def vocoder(x: Tensor, rate: int, n_mels: int, f_max: float) -> Tensor:
    """HiFi-GAN and BigVGAN: 1024 / 256, padded by hand."""
    x = F.pad(x.double().unsqueeze(1), (384, 384), mode="reflect").squeeze(1)
    window = torch.hann_window(1024).double()
    spec = torch.stft(x, 1024, 256, 1024, window, center=False, return_complex=True)
    magnitude = torch.sqrt(torch.view_as_real(spec).pow(2).sum(-1) + 1e-9)
    return torch.log(torch.clamp(librosa_bank(rate, 1024, n_mels, 0.0, f_max) @ magnitude, min=1e-5))


def nemo(x: Tensor) -> Tensor:
    x = x.double()
    valid = x.shape[1] // 160
    x = torch.cat((x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]), dim=1)
    window = torch.hann_window(400, periodic=False).double()
    spec = torch.stft(x, 512, 160, 400, window, center=True, pad_mode="constant", return_complex=True)
    mel = librosa_bank(16000, 512, 80, 0.0, None) @ torch.view_as_real(spec).pow(2).sum(-1).sqrt().pow(2.0)
    log = torch.log(mel + 2**-24)[..., :valid]
    return (log - log.mean(2, keepdim=True)) / (log.std(2, keepdim=True) + 1e-5)


def shifted_sizes(n_fft: int, win: int, hop: int, keyshift: float, speed: float) -> tuple[int, int, int]:
    factor = 2 ** (keyshift / 12)
    return int(np.round(n_fft * factor)), int(np.round(win * factor)), int(np.round(hop * speed))


def _fitted(magnitude: Tensor, n_fft: int, win: int, new_win: int) -> Tensor:
    size = n_fft // 2 + 1
    if magnitude.shape[1] < size:
        magnitude = F.pad(magnitude, (0, 0, 0, size - magnitude.shape[1]))
    return magnitude[:, :size] * win / new_win


def rmvpe(x: Tensor, keyshift: float = 0, speed: float = 1, center: bool = True) -> Tensor:
    n_fft, win, hop = shifted_sizes(1024, 1024, 160, keyshift, speed)
    window = torch.hann_window(win).double()
    spec = torch.stft(x.double(), n_fft, hop, win, window, center=center, return_complex=True)
    magnitude = torch.sqrt(spec.real.pow(2) + spec.imag.pow(2))
    if keyshift != 0:
        magnitude = _fitted(magnitude, 1024, 1024, win)
    return torch.log(torch.clamp(librosa_bank(16000, 1024, 128, 30.0, 8000.0, htk=True) @ magnitude, min=1e-5))


def fcpe(x: Tensor, keyshift: float = 0, speed: float = 1, basis: Tensor | None = None, size: int = 1024) -> Tensor:
    n_fft, win, hop = shifted_sizes(size, size, 160, keyshift, speed)
    left = (win - hop) // 2
    right = max((win - hop + 1) // 2, win - x.shape[-1] - left)
    mode = "reflect" if right < x.shape[-1] else "constant"
    padded = F.pad(x.double().unsqueeze(1), (left, right), mode=mode).squeeze(1)
    window = torch.hann_window(win).double()
    spec = torch.stft(padded, n_fft, hop, win, window, center=False, return_complex=True)
    magnitude = torch.sqrt(spec.real.pow(2) + spec.imag.pow(2) + 1e-9)
    if keyshift != 0:
        magnitude = _fitted(magnitude, size, size, win)
    bank = librosa_bank(16000, size, 128, 0.0, 8000.0) if basis is None else basis.double()
    return torch.log(torch.clamp(bank @ magnitude, min=1e-5))


# name of the preset -> what it must give for a signal (B, T)
PRESET_REFERENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "whisper": whisper,
    "rmvpe": rmvpe,
    "fcpe": fcpe,
    "hifigan": lambda x: vocoder(x, 22050, 80, 8000.0),
    "bigvgan": lambda x: vocoder(x, 24000, 100, 12000.0),
    "nemo": nemo,
}
LN10 = math.log(10.0)
