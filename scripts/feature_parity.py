#!/usr/bin/env python3
"""Prints how far the features are from librosa, torchaudio and the definitions of madmom, in float32.

    scripts/feature_parity.py [--backend torch|host|cuda|metal] [--device cpu]

The configurations and signals are those of the tests. References are computed in float64 (but for librosa.hybrid_cqt,
which decimates in the precision of the signal); an error is the largest over all of them, in the unit of its row.
Silent frames of odd sizes are left out, of which kernels have the rounding of a neighbour: see docs/features.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("tests", ".")]

import descriptor_cases as descriptors  # noqa: E402
import front_end_cases as cases  # noqa: E402
import librosa_mel_cases as mel_cases  # noqa: E402
import test_cqt  # noqa: E402
import test_descriptors  # noqa: E402
import test_framewise  # noqa: E402
import test_madmom  # noqa: E402
import test_mfcc  # noqa: E402
import test_onset  # noqa: E402
import torch  # noqa: E402
from test_chroma import theirs as chroma_of_librosa  # noqa: E402
from torch import Tensor  # noqa: E402
from torchaudio_stub import import_torchaudio  # noqa: E402

import mps_spectro as ms  # noqa: E402

OF_LARGEST, OF_VALUE, DECIBELS, LOG10 = "of the largest value", "of the value", "dB", "of log10(S + 1)"
Errors = Iterator[float]
Place = Callable[[Tensor], Tensor]


def cepstra(kind: str, place: Place, powers: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)) -> Errors:
    for case in mel_cases.CASES:
        if case.get("power", 2.0) in powers:
            x = mel_cases.signal(mel_cases.rate(case), kind)
            options = test_mfcc.fitted(case)
            yield cases.relative(ms.mfcc(place(x), **options), test_mfcc.librosas(x, **options))


def onsets(kind: str, place: Place) -> Errors:
    for case in mel_cases.CASES:
        x = mel_cases.signal(mel_cases.rate(case), kind)
        yield cases.relative(ms.onset_strength(place(x), **case), test_onset.librosas(x, **case))


def torchaudio_mfcc(place: Place) -> Errors:
    torchaudio = import_torchaudio()
    for rate, n_fft, n_mels, n_mfcc in ((16000, 400, 40, 13), (22050, 1024, 64, 20), (44100, 2048, 128, 40)):
        x = mel_cases.signal(rate, "noise")
        mel = {"n_fft": n_fft, "hop_length": n_fft // 4, "n_mels": n_mels}
        theirs = torchaudio.transforms.MFCC(rate, n_mfcc, melkwargs=mel).double()(x.double())
        same = {"sample_rate": rate, "norm": None, "mel_scale": "htk", "center_pad_mode": "reflect"}
        yield cases.relative(ms.mfcc(place(x), n_mfcc=n_mfcc, **mel, **same), theirs)


def heard(got: Tensor, expected: Tensor, case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Both without silent frames, if the size is odd."""
    frames = (
        expected.amax(-2) > 0.0 if case.get("n_fft", 2048) % 2 else torch.ones(expected.shape[-1], dtype=torch.bool)
    )
    return got[..., frames], expected[..., frames]


def descriptor(name: str, place: Place) -> Errors:
    ours = test_descriptors.FUNCTIONS[name][0]
    for case in descriptors.CASES:
        options = test_descriptors.bands_that_fit(case) if name == "contrast" else {}
        for kind in ("mixture", "noise"):
            x = descriptors.signal(descriptors.rate(case), kind)
            got = ours(place(x), **case, **options).cpu()
            if name == "contrast":
                yield cases.absolute(got, torch.from_numpy(test_descriptors.theirs(name, x, case, **options)))
            else:
                expected = test_descriptors.theirs(name, x, case)
                got = test_descriptors.ties(got, x, case) if name == "rolloff" else got
                yield descriptors.error(*heard(got, torch.from_numpy(expected), case), floor=1.0)  # Hz


def chroma(place: Place) -> Errors:
    for case in descriptors.CASES:
        for kind in ("mixture", "noise", "tone", "chirp"):
            x = descriptors.signal(descriptors.rate(case), kind)
            yield cases.relative(*heard(ms.chroma_stft(place(x), **case).cpu(), chroma_of_librosa(x, case), case))


def framewise(ours: Callable[..., Tensor], librosas: Callable[..., Any], place: Place) -> Errors:
    for frame_length, hop_length in test_framewise.FRAMES:
        sizes = {"frame_length": frame_length, "hop_length": hop_length}
        for kind in test_framewise.KINDS:
            x = descriptors.signal(22050, kind)
            yield descriptors.error(ours(place(x), **sizes), librosas(x, **sizes))


def constant_q(place: Place) -> Errors:
    for case in test_cqt.CASES:
        sr = case.get("sr", 22050)
        x = test_cqt.signals(sr, int(0.61 * sr) + 3)
        for got, expected in zip(ms.hybrid_cqt(place(x), **case), test_cqt.theirs(x, case)):
            yield cases.relative(got, expected)


def madmom(place: Place) -> Errors:
    for case in test_madmom.CONFIGURATIONS:
        x = test_madmom.short(case)
        yield cases.absolute(ms.madmom_log_spectrogram(place(x), **case), test_madmom.expected_of(x.double(), **case))


def rows(place: Place) -> Iterator[tuple[str, str, Errors]]:
    yield "mfcc, librosa", OF_LARGEST, cepstra("mixture", place)
    yield "mfcc, librosa, a pure tone", OF_LARGEST, cepstra("tone", place, (1.5, 2.0, 3.0))
    yield "mfcc, librosa, a pure tone, power 1", OF_LARGEST, cepstra("tone", place, (1.0,))
    yield "mfcc, torchaudio", OF_LARGEST, torchaudio_mfcc(place)
    yield "onset_strength, librosa", OF_LARGEST, onsets("mixture", place)
    for name in ("centroid", "bandwidth", "rolloff", "contrast"):
        unit = DECIBELS if name == "contrast" else OF_VALUE
        yield f"spectral_{name}, librosa", unit, descriptor(name, place)
    yield "chroma_stft, librosa", OF_LARGEST, chroma(place)
    yield "rms, librosa", OF_VALUE, framewise(ms.rms, test_framewise.their_rms, place)
    yield "zero_crossing_rate, librosa", OF_VALUE, framewise(ms.zero_crossing_rate, test_framewise.their_rate, place)
    yield "hybrid_cqt, librosa", OF_LARGEST, constant_q(place)
    yield "madmom_log_spectrogram, its definition", LOG10, madmom(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'':40} {'signals':>7} {'error':>9}")
    with ms.use_backend(chosen.backend):
        for name, unit, errors in rows(lambda x: x.to(chosen.device)):
            found = list(errors)
            print(f"{name:40} {len(found):7d} {max(found):9.1e} {unit}", flush=True)
    counted = ms.diagnostics()
    print("\nroutes:", {name: counted[name] for name in ("kernel_calls", "torch_route")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
