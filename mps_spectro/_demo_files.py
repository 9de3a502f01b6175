"""The demonstration's recording, picture and sound file."""

from __future__ import annotations

import ctypes
import math
import wave
from pathlib import Path

import torch

_FLOOR = -100.0  # dB below the loudest point; what is softer is drawn black


class DemoError(Exception):
    """The demonstration cannot go on; the message says what to do."""


def load(path: str) -> tuple[torch.Tensor, int, str]:
    """A sound file as (channels, samples) float32, its rate in Hz, and its name."""
    file = Path(path)
    if not file.is_file():
        raise DemoError(f"no such file: {path}")
    try:
        import soundfile
    except ImportError:
        if file.suffix.lower() != ".wav":
            raise DemoError(
                f"reading {file.suffix or 'this'} files needs soundfile: pip install 'mps-spectro[audio]' "
                "(16-bit WAV files work without)"
            ) from None
        return *_read_wav(file), file.name
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as why:
        raise DemoError(f"cannot read {path}: {why}") from None
    return torch.from_numpy(samples).T.contiguous(), int(rate), file.name


def _read_wav(file: Path) -> tuple[torch.Tensor, int]:
    try:
        with wave.open(str(file), "rb") as reader:
            channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            data = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as why:
        raise DemoError(f"cannot read {file}: {why}; pip install 'mps-spectro[audio]' for every format") from None
    if width != 2:
        raise DemoError(f"{file} has {8 * width}-bit samples: pip install 'mps-spectro[audio]' for every format")
    samples = torch.frombuffer(bytearray(data), dtype=torch.int16) if data else torch.zeros(0, dtype=torch.int16)
    return (samples.float() / 32768).reshape(-1, channels).T.contiguous(), rate


def synthesise(rate: int = 44100, seconds: float = 6.0) -> tuple[torch.Tensor, int, str]:
    """A stereo recording: left a rising chirp over soft noise, right plucked harmonic tones and a falling chirp."""
    count = round(rate * seconds)
    t = torch.arange(count, dtype=torch.float64) / rate
    generator = torch.Generator().manual_seed(1)

    def chirp(low: float, high: float) -> torch.Tensor:
        rise = math.log(high / low) / seconds
        return torch.sin(2 * math.pi * low * torch.expm1(rise * t) / rise)

    left = 0.4 * chirp(60.0, 16000.0) + 0.003 * torch.randn(count, generator=generator, dtype=torch.float64)
    right = 0.1 * chirp(12000.0, 200.0)
    for index, pitch in enumerate((220.0, 277.18, 329.63, 440.0, 554.37, 659.26)):
        start = round(index * count / 6)
        note = right[start : start + 2 * rate]  # a view; two seconds later the note is gone
        since = t[: note.shape[0]]
        for harmonic in range(1, 11):
            ring = torch.exp(-since * (3 + 0.4 * harmonic))
            note += 0.25 / harmonic * ring * torch.sin(2 * math.pi * pitch * harmonic * since)
    return torch.stack((left, right)).float(), rate, "synthesised"


def write_wav(path: Path, signal: torch.Tensor, rate: int) -> None:
    """Writes (channels, samples) in [-1, 1] as 16-bit PCM."""
    pcm = (signal.clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous()
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(pcm.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(ctypes.string_at(pcm.data_ptr(), pcm.nbytes))


def write_picture(path: Path, magnitude: torch.Tensor, rate: int, hop: int, title: str) -> str | None:
    """Draws a (channels, bins, frames) magnitude in dB, one panel per channel. Says what is missing if it cannot."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return "no picture: it needs matplotlib, pip install 'mps-spectro[plots]'"
    channels, _, frames = magnitude.shape
    seconds = frames * hop / rate
    decibel = 20 * torch.log10(magnitude.clamp_min(1e-12))
    decibel = (decibel - decibel.max()).clamp_min(_FLOOR)
    # more columns than pixels would hide short events: keep the loudest of each column's frames
    step = math.ceil(frames / 1600)
    decibel = torch.nn.functional.max_pool1d(decibel, step, ceil_mode=True)

    figure = Figure(figsize=(12, 1.2 + 3.4 * channels), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
    names = ["left", "right"] if channels == 2 else [f"channel {index + 1}" for index in range(channels)]
    for panel, values, name in zip(panels, decibel, names, strict=True):
        image = panel.imshow(
            values.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=_FLOOR,
            vmax=0,
            extent=(0, seconds, 0, rate / 2000),
            interpolation="nearest" if frames < 800 else "antialiased",
        )
        panel.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        panel.set_ylabel(f"{name}\nfrequency (kHz)" if channels > 1 else "frequency (kHz)")
    panels[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(panels), label="level (dB, the loudest point is 0)", pad=0.01)
    figure.savefig(path)
    return None
