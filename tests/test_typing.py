"""The types of arguments name what the functions take."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Callable, get_args

import pytest
import torch

import mps_spectro
from mps_spectro import _reference
from mps_spectro import typing as types
from mps_spectro._backend import BACKENDS

SMALL: dict[str, Any] = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16}
X = torch.linspace(-1.0, 1.0, 400)


def mel(**options: Any) -> Any:
    return mps_spectro.mel_spectrogram(X, **SMALL, n_mels=8, **options)


def centred(value: str, **options: Any) -> Any:
    return mps_spectro.spectral_centroid(X, **SMALL, **options, center_pad_mode=value)


def policy(value: str) -> Any:
    transform = mps_spectro.SpectralTransform(64, 16, istft_backend_policy=value)
    return transform.istft_backend_policy


# what calls a function with a value of each type
CALLS: dict[str, Callable[[Any], Any]] = {
    "CenterPadMode": centred,
    "CenterTailPad": lambda value: centred("constant", center_tail_pad=value),
    "FilteredOutputScale": lambda value: mps_spectro.filtered_spectrogram(
        X, filterbank=torch.ones(33, 2), n_fft=64, hop_length=16, output_scale=value
    ),
    "ISTFTBackendPolicy": policy,
    "LogMelMode": lambda value: mel(output_scale="log", log_mode=value),
    "MelMode": lambda value: mel(mode=value),
    "MelNorm": lambda value: mel(norm=value),
    "MelOutputScale": lambda value: mel(output_scale=value),
    "MelScale": lambda value: mel(mel_scale=value),
    "STFTOutputLayout": lambda value: mps_spectro.SpectralTransform(64, 16).stft(X, output_layout=value),
}


def values(name: str) -> tuple[Any, ...]:
    """Of a Literal, or of a Literal or None."""
    flat = [get_args(arg) if get_args(arg) else (arg,) for arg in get_args(getattr(types, name))]
    return tuple(None if value is type(None) else value for group in flat for value in group)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_every_value_is_taken_and_no_other(name: str) -> None:
    assert len(values(name)) >= 2
    for value in values(name):
        CALLS[name](value)
    with pytest.raises(ValueError, match="must be"):
        CALLS[name]("another")


@pytest.mark.parametrize("window", [torch.hann_window, "hann", torch.ones(64)], ids=["function", "name", "tensor"])
def test_windows(window: types.WindowLike) -> None:
    assert mel(window_fn=window).isfinite().all()


def test_nothing_is_missing() -> None:
    assert set(get_args(types.CenterPadMode)) == set(_reference.PAD_MODES)
    assert set(BACKENDS) < set(get_args(types.ISTFTBackendPolicy))


# argument -> its type; some functions have another argument of the same name
NAMES = {
    "center_pad_mode": "CenterPadMode",
    "center_tail_pad": "CenterTailPad",
    "input_layout": "STFTOutputLayout",
    "log_mode": "LogMelMode",
    "mel_scale": "MelScale",
    "output_layout": "STFTOutputLayout",
    "window_fn": "WindowLike",
}


def test_signatures_use_them() -> None:
    seen = set()
    for name in mps_spectro.__all__:
        public = getattr(mps_spectro, name)
        function = public.__init__ if isinstance(public, type) else public
        if not inspect.isfunction(function):
            continue
        hints = typing.get_type_hints(function)
        for argument in NAMES.keys() & hints.keys():
            if argument == "window_fn" and name in ("SpectralTransform", "get_transform", "make_window"):
                continue  # these take the window as `window`
            assert hints[argument] == getattr(types, NAMES[argument]), (name, argument)
            seen.add(argument)
    assert len(seen) >= 5
