"""Log-triangular banks against madmom's definition in numpy, and against madmom where it is installed."""

from __future__ import annotations

import random
from typing import Any

import front_end_cases as cases
import numpy as np
import pytest
import torch
from madmom_reference import log_bank, madmom_or_skip

from mps_spectro import log_triangular_fbanks
from mps_spectro.log_triangular import log_triangular_rows

# all-in-one's and the banks of madmom's trackers at four resolutions, then one change at a time, then odd sizes
BANKS: list[dict[str, Any]] = [
    {},
    {"bands_per_octave": 6},
    {"bands_per_octave": 6, "n_freqs": 512},
    {"bands_per_octave": 3, "n_freqs": 512},
    {"bands_per_octave": 12, "n_freqs": 2048},
    {"bands_per_octave": 24, "n_freqs": 4096, "f_min": 65.0, "f_max": 2100.0},
    {"bands_per_octave": 24, "n_freqs": 704, "sample_rate": 22050},
    {"bands_per_octave": 48, "n_freqs": 300},
    {"bands_per_octave": 1},
    {"norm_filters": False},
    {"unique_bins": False},
    {"unique_bins": False, "norm_filters": False, "f_min": 27.5, "f_max": 4186.0},
    {"include_nyquist": True, "n_freqs": 1025},
    {"include_nyquist": True, "n_freqs": 513, "sample_rate": 16000, "norm_filters": False},
    {"f_ref": 442.0},
    {"f_ref": 432.1, "sample_rate": 48000},
    {"f_ref": None},
    {"f_ref": None, "bands_per_octave": 24, "n_freqs": 704, "sample_rate": 22050},
    {"f_ref": None, "f_max": 2100.0, "unique_bins": False},
    {"f_min": 5.0},
    {"f_min": 27.5, "f_max": 14080.0},
    {"f_max": 40000.0},
    {"sample_rate": 8000, "f_max": 4000.0},
    # many centres exactly between two bins
    {"n_freqs": 1025, "sample_rate": 8000, "f_max": 3900.0, "norm_filters": False},
    {"n_freqs": 900, "sample_rate": 16000, "bands_per_octave": 2, "norm_filters": False},
    {"n_freqs": 37, "sample_rate": 11025.5, "bands_per_octave": 5},
]


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    return {"n_freqs": 1024, "sample_rate": 44100, "bands_per_octave": 12, "f_min": 30.0, "f_max": 17000.0, **case}


@pytest.mark.parametrize("case", BANKS, ids=cases.name)
def test_definition(case: dict[str, Any]) -> None:
    given = arguments(case)
    expected = log_bank(**given)
    narrow, wide = log_triangular_fbanks(**given), log_triangular_fbanks(**given, dtype=torch.float64)
    assert narrow.dtype == torch.float32 and narrow.shape == expected.shape
    assert np.abs(wide.numpy() - expected).max() < 1e-14
    assert torch.equal(narrow, wide.float())


def test_random_banks_are_the_definitions() -> None:
    rng = random.Random(0)
    for _ in range(30):
        given = {
            "n_freqs": rng.randint(200, 1500),
            "sample_rate": rng.choice((8000, 11025, 16000, 22050, 32000, 44100, 48000)),
            "bands_per_octave": rng.randint(2, 36),
            "f_min": rng.uniform(20.0, 200.0),
            "f_max": rng.uniform(1000.0, 3900.0),
            "f_ref": rng.choice((440.0, 442.0, rng.uniform(400.0, 480.0))),
            "norm_filters": rng.random() < 0.5,
            "unique_bins": rng.random() < 0.5,
        }
        got = log_triangular_fbanks(**given, dtype=torch.float64)
        assert cases.absolute(got, torch.from_numpy(log_bank(**given))) < 1e-14, given


def test_madmom_itself() -> None:
    filters, stft = madmom_or_skip("filters"), madmom_or_skip("stft")
    names = {"bands_per_octave": "num_bands", "f_min": "fmin", "f_max": "fmax", "f_ref": "fref"}
    for case in BANKS:
        given = arguments(case)
        if given.get("include_nyquist") or given.get("f_ref", 440.0) is None:
            continue  # madmom spaces the former otherwise and has no latter
        frequencies = stft.fft_frequencies(given["n_freqs"], given["sample_rate"])
        options = {names.get(name, name): value for name, value in given.items()}
        options["unique_filters"] = options.pop("unique_bins", True)
        del options["n_freqs"], options["sample_rate"]
        theirs = torch.from_numpy(np.asarray(filters.LogarithmicFilterbank(frequencies, **options)))
        # madmom normalizes in float32
        assert cases.absolute(log_triangular_fbanks(**given), theirs) < 6e-8, given


@pytest.mark.parametrize(
    ("case", "bands"),
    [
        ({}, 81),
        ({"bands_per_octave": 6}, 45),
        ({"bands_per_octave": 6, "n_freqs": 512}, 39),
        ({"unique_bins": False}, 108),
        ({"bands_per_octave": 24, "n_freqs": 704, "sample_rate": 22050, "f_ref": None}, 136),
    ],
    ids=cases.name,
)
def test_known_numbers_of_bands(case: dict[str, Any], bands: int) -> None:
    bank = log_triangular_fbanks(**arguments(case))
    assert bank.shape == (case.get("n_freqs", 1024), bands)
    assert bank.isfinite().all() and (bank >= 0).all() and (bank.sum(0) - 1).abs().max() < 1e-6


def test_every_call_gives_a_new_tensor_and_the_kept_one_stays() -> None:
    given = arguments({})
    first = log_triangular_fbanks(**given)
    expected = first.clone()
    first.zero_()
    assert torch.equal(log_triangular_fbanks(**given), expected)
    del given["n_freqs"], given["sample_rate"], given["bands_per_octave"]
    given.update(f_ref=440.0, norm_filters=True, unique_bins=True, dtype=torch.float32, device=torch.device("cpu"))
    kept = log_triangular_rows(2048, 44100, 12, **given)
    assert kept is log_triangular_rows(2048, 44100, 12, **given)
    assert torch.equal(kept[:, :-1].t(), expected) and (kept[:, -1] == 0).all()
    with torch.inference_mode():
        other = log_triangular_rows(2048, 44100, 11, **given)
    assert not other.is_inference()


def test_compiles_whole() -> None:
    def function(x: torch.Tensor, bands: int) -> torch.Tensor:
        return x @ log_triangular_fbanks(128, 16000, bands, f_min=200.0, f_max=4000.0)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = cases.noise(3, 128)
    for bands in (2, 3):
        assert torch.equal(compiled(x, bands), function(x, bands))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_freqs": 1}, ValueError, "n_freqs must be at least 2"),
        ({"n_freqs": 10.0}, TypeError, "n_freqs must be an int"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"sample_rate": float("nan")}, ValueError, "sample_rate must be positive"),
        ({"bands_per_octave": 0}, ValueError, "bands_per_octave must be positive"),
        ({"bands_per_octave": 1.5}, TypeError, "bands_per_octave must be an int"),
        ({"f_min": 0.0}, ValueError, "f_min must be positive"),
        ({"f_max": 30.0}, ValueError, "f_max must be above f_min=30.0"),
        ({"f_max": float("inf")}, ValueError, "f_max must be above f_min=30.0 and finite"),
        ({"f_ref": 0.0}, ValueError, "f_ref must be None or positive"),
        ({"f_ref": float("nan")}, ValueError, "f_ref must be None or positive"),
        ({"f_min": 430.0, "f_max": 470.0}, ValueError, "must hold at least 3 centre frequencies, got 2"),
        ({"f_min": 20.0, "f_max": 50.0, "n_freqs": 100}, ValueError, "must cover at least 3 bins, got 1"),
        ({"unique_bins": False, "n_freqs": 64, "bands_per_octave": 3, "f_max": 40000.0}, ValueError, "highest bin"),
        ({"norm_filters": 1}, TypeError, "norm_filters must be True or False"),
        ({"unique_bins": None}, TypeError, "unique_bins must be True or False"),
        ({"include_nyquist": "yes"}, TypeError, "include_nyquist must be True or False"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        log_triangular_fbanks(**arguments(change))
