#!/usr/bin/env python3
"""Prints how far the mel front ends are from live torchaudio, from librosa and from the projects of the presets.

    scripts/frontend_parity.py [--backend torch|host|cuda|metal] [--device cpu] [--full]

Errors are the largest over the grid: linear outputs relative to the largest value, logarithmic ones absolute in dB or
nepers. References are computed in float64 (banks and windows as the library makes them, in float32); the column
"torchaudio" is what torchaudio itself, in float32 on the CPU, is off by. Exits with 1 if a limit is exceeded, unless
the error is less than twice torchaudio's own: a band of one bin where noise nearly vanishes has no more digits in
float32.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("tests", ".")]

import front_end_cases as cases  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torchaudio_stub import import_torchaudio  # noqa: E402

import mps_spectro as ms  # noqa: E402


def against_torchaudio(chosen: list[dict[str, Any]], device: str) -> dict[str, list[float]]:
    import torchaudio

    rows: dict[str, list[float]] = {}
    for case in chosen:
        arguments = {name: value for name, value in case.items() if name != "shape"}
        x = cases.signal(case)
        theirs = torchaudio.transforms.MelSpectrogram(**arguments)
        exact = theirs.double()(x.double())
        mine = ms.CompatMelSpectrogramTransform(**arguments).to(device)
        stype = "magnitude" if case["power"] == 1 else "power"
        to_db = torchaudio.transforms.AmplitudeToDB(stype, top_db=80.0)
        theirs = theirs.float()
        compared = {
            "linear": (cases.relative, mine(x.to(device)), exact, theirs(x)),
            "dB, top_db 80": (
                cases.absolute,
                ms.CompatMelSpectrogramTransform(**arguments, output_scale="db", top_db=80.0).to(device)(x.to(device)),
                to_db(exact),
                to_db(theirs(x)),
            ),
            "log": (
                cases.absolute,
                mine(x.to(device), output_scale="log"),
                exact.clamp(min=1e-5).log(),
                theirs(x).clamp(min=1e-5).log(),
            ),
        }
        for output, (measure, ours, expected, native) in compared.items():
            for axis in ("n_fft", "power", "normalized"):
                row = rows.setdefault(f"{output} | {axis}={case[axis]}", [0.0, 0.0, 0])
                row[0] = max(row[0], measure(ours, expected))
                row[1] = max(row[1], measure(native, expected))
                row[2] += 1
    return rows


def against_librosa(chosen: list[dict[str, Any]], device: str) -> dict[str, list[float]]:
    import librosa

    rows: dict[str, list[float]] = {}
    for case in chosen:
        x = cases.noise(2, 3 * case["n_fft"] + 777, seed=case["n_fft"])
        shared = {"n_fft": case["n_fft"], "hop_length": case["hop_length"], "n_mels": case["n_mels"]}
        expected = torch.from_numpy(
            librosa.feature.melspectrogram(
                y=x.double().numpy(),
                sr=case["sample_rate"],
                power=case["power"],
                htk=case["mel_scale"] == "htk",
                norm=case["norm"],
                fmin=case["f_min"],
                dtype="float64",
                **shared,
            )
        )
        module = ms.MelSpectrogramTransform.preset(
            "librosa",
            sample_rate=case["sample_rate"],
            power=case["power"],
            mel_scale=case["mel_scale"],
            norm=case["norm"],
            f_min=case["f_min"],
            **shared,
        ).to(device)
        convert = librosa.amplitude_to_db if case["power"] == 1 else librosa.power_to_db
        amin = 1e-10
        expected_db = torch.stack(
            [torch.from_numpy(convert(e.numpy(), ref=1.0, amin=amin, top_db=80.0)) for e in expected]
        )
        for name, error in (
            ("linear", cases.relative(module(x.to(device)), expected)),
            ("dB, top_db 80", cases.absolute(module(x.to(device), output_scale="db"), expected_db)),
        ):
            row = rows.setdefault(f"{name} | n_fft={case['n_fft']}", [0.0, float("nan"), 0])
            row[0] = max(row[0], error)
            row[2] += 1
    return rows


def presets(device: str) -> dict[str, list[float]]:
    rows = {}
    x = 0.3 * cases.noise(2, 16123, seed=5)
    for name, reference in cases.PRESET_REFERENCES.items():
        got = ms.LogMelSpectrogramTransform.preset(name).to(device)(x.to(device))
        rows[f"log | {name}"] = [cases.absolute(got, reference(x)), float("nan"), 1]
    return rows


def dynamic(device: str, full: bool) -> dict[str, list[float]]:
    rows = {}
    x = 0.3 * cases.noise(2, 9000, seed=6)
    keys = [k / 2 for k in range(-24, 25)] if full else [-12, -7.3, -5, -0.5, 0, 1, 3, 4.21, 7, 12]
    for name, reference in (("rmvpe", cases.rmvpe), ("fcpe", cases.fcpe)):
        module = ms.DynamicMelSpectrogramTransform.preset(name).to(device)
        for speed in (0.5, 0.8, 1.0, 1.2, 2.0):
            errors = [
                cases.absolute(module(x.to(device), keyshift=key, speed=speed), reference(x, key, speed))
                for key in keys
            ]
            rows[f"log | {name}, speed {speed}"] = [max(errors), float("nan"), len(errors)]
    return rows


def banks(chosen: list[dict[str, Any]]) -> bool:
    import torchaudio

    def both(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
        shape = (case["n_fft"] // 2 + 1, case["f_min"], float(case["sample_rate"] // 2), case["n_mels"])
        rest = (case["sample_rate"], case["norm"], case["mel_scale"])
        return torchaudio.functional.melscale_fbanks(*shape, *rest).T, ms.melscale_fbanks(*shape, *rest)

    return all(torch.equal(*both(case)) for case in chosen)


def show(title: str, rows: dict[str, list[float]]) -> bool:
    print(f"\n{title}\n{'':44} {'cases':>6} {'error':>9} {'limit':>9} {'torchaudio':>11}")
    ok = True
    for name, (error, native, count) in sorted(rows.items()):
        limit = cases.LINEAR if name.startswith("linear") else cases.LOGARITHMIC
        verdict = "" if error <= limit else "as torchaudio" if error <= 2.0 * native else "EXCEEDED"
        ok &= verdict != "EXCEEDED"
        other = "" if native != native else f"{native:.1e}"
        print(f"{name:44} {count:6d} {error:9.1e} {limit:9.0e} {other:>11}  {verdict}".rstrip())
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="every case of the grid")
    chosen = parser.parse_args()
    import_torchaudio()
    warnings.simplefilter("ignore")
    grid = list(cases.grid()) if chosen.full else cases.sample(120)
    with ms.use_backend(chosen.backend):
        equal = banks(grid)
        print(f"banks bit-equal to torchaudio: {'yes' if equal else 'NO'} ({len(grid)} cases)")
        tables = (
            ("against torchaudio", against_torchaudio(grid, chosen.device)),
            ("against librosa", against_librosa(grid, chosen.device)),
            ("presets against their projects' definitions", presets(chosen.device)),
            ("dynamic front ends, keyshift -12 .. 12", dynamic(chosen.device, chosen.full)),
        )
        ok = [show(*table) for table in tables]
    print(
        "\nroutes:",
        {name: value for name, value in ms.diagnostics().items() if name in ("kernel_calls", "torch_route")},
    )
    return 0 if equal and all(ok) else 1


if __name__ == "__main__":
    sys.exit(main())
