"""The recordings that tests read where they are at hand."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "audio"


@functools.lru_cache(maxsize=2)
def recording(name: str, seconds: float = 2.0, start: float = 0.0) -> tuple[Tensor, int]:
    """(channels, T) in float32 and the sample rate; skips the calling test where the recordings are not at hand."""
    soundfile = pytest.importorskip("soundfile")
    if not (FOLDER / name).exists():
        pytest.skip(f"{FOLDER / name} is missing")
    with soundfile.SoundFile(FOLDER / name) as file:
        rate = file.samplerate
        file.seek(min(int(start * rate), file.frames))
        return torch.from_numpy(file.read(int(seconds * rate), dtype="float32", always_2d=True).T.copy()), rate


def recordings() -> list[str]:
    """The names of all; skips the calling test where there are none."""
    names = sorted(path.name for path in FOLDER.glob("*") if path.suffix in (".wav", ".ogg", ".flac"))
    if not names:
        pytest.skip(f"no recordings in {FOLDER}")
    return names
