"""What all modules of the package have in common."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable

import front_end_cases as cases
import pytest
import torch
from conftest import Route
from torch import Tensor, nn

import mps_spectro
from mps_spectro._backend import use_backend

# every public module with its arguments; small, because each is compiled or trained
MODULES: dict[str, dict[str, Any]] = {
    "CompatMelSpectrogramTransform": {"n_fft": 128, "n_mels": 12},
    "DynamicMelSpectrogramTransform": {"sample_rate": 8000, "n_fft": 128, "hop_length": 32, "n_mels": 12},
    "FilteredSpectrogramTransform": {"filterbank": torch.rand(65, 9), "n_fft": 128, "hop_length": 32},
    "HybridCQTTransform": {"sr": 8000, "hop_length": 64, "n_bins": 36, "fmin": 200.0},
    "LogMelSpectrogramTransform": {"sample_rate": 8000, "n_fft": 128, "hop_length": 32, "n_mels": 12},
    "MFCCTransform": {"sample_rate": 8000, "n_fft": 128, "hop_length": 32, "n_mels": 12, "n_mfcc": 5},
    "MelSpectrogramTransform": {"sample_rate": 8000, "n_fft": 128, "hop_length": 32, "n_mels": 12},
    "SpectralFeatureTransform": {
        "sample_rate": 8000, "n_fft": 128, "hop_length": 32, "n_mels": 12, "n_mfcc": 5, "n_bands": 3,
    },
    "SpectralTransform": {"n_fft": 128, "hop_length": 32},
}  # fmt: skip


def make(name: str) -> nn.Module:
    return getattr(mps_spectro, name)(**MODULES[name])


def loss(module: nn.Module, x: Tensor) -> Tensor:
    """Of the squares, so that its derivative needs everything that the module keeps."""
    out = module(x)
    return sum(values.abs().square().sum() for values in (out.values() if isinstance(out, dict) else (out,)))


def test_all_modules_are_here() -> None:
    public = (getattr(mps_spectro, name) for name in mps_spectro.__all__)
    assert {one.__name__ for one in public if isinstance(one, type) and issubclass(one, nn.Module)} == set(MODULES)


def gradient(module: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    loss(module, leaf).backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0
    return leaf.grad


BORN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "made": lambda module: module,
    "moved": lambda module: module.double().float(),
    "copied": copy.deepcopy,
    "unpickled": lambda module: pickle.loads(pickle.dumps(module)),
}


@pytest.mark.parametrize("born", BORN)
@pytest.mark.parametrize("name", MODULES)
def test_trains_after_inference_mode(name: str, born: str, route: Route) -> None:
    x = cases.noise(2, 2000)
    early = make(name)
    with torch.inference_mode(), use_backend("auto"):
        module = BORN[born](make(name) if born == "made" else early)
        module(x)
        module.to(route.device)
    x = x.to(route.device)
    expected = gradient(make(name).to(route.device), x)
    assert not any(table.is_inference() for table in module.buffers())
    assert cases.relative(gradient(module, x), expected) < 1e-6


@pytest.mark.parametrize("name", MODULES)
def test_a_subclass_shows_what_it_passes_on(name: str) -> None:
    class Ours(getattr(mps_spectro, name)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(**MODULES[name])

    assert repr(Ours()) == repr(make(name)).replace(name, "Ours", 1)


# the plan of the CQT cannot be traced
@pytest.mark.parametrize("name", [name for name in MODULES if name != "HybridCQTTransform"])
def test_made_inside_of_a_compiled_function(name: str) -> None:
    x = cases.noise(1, 1000)
    compiled = torch.compile(lambda x: loss(make(name), x), backend="eager")
    assert torch.allclose(compiled(x), loss(make(name), x), rtol=1e-4)


# instances of SpectralFeatureTransform share theirs
@pytest.mark.parametrize("name", [name for name in MODULES if name != "SpectralFeatureTransform"])
def test_buffers_are_its_own(name: str) -> None:
    x = cases.noise(1, 1000)
    expected = loss(make(name), x)
    broken = make(name)
    for table in broken.buffers():
        table.zero_()
    assert not torch.allclose(loss(broken, x), expected)
    assert torch.equal(loss(make(name), x), expected)


WITH_WINDOW = [name for name in MODULES if name not in ("HybridCQTTransform", "SpectralTransform")]


@pytest.mark.parametrize("name", WITH_WINDOW)
def test_a_window_in_place_of_a_function(name: str, route: Route) -> None:
    x = cases.noise(1, 1000).to(route.device)
    window = torch.hamming_window(128)
    expected = loss(getattr(mps_spectro, name)(**MODULES[name], window_fn="hamming").to(route.device), x)
    module = getattr(mps_spectro, name)(**MODULES[name], window_fn=window).to(route.device)
    window.zero_()
    assert torch.equal(loss(module, x), expected)
    assert torch.equal(loss(pickle.loads(pickle.dumps(module)), x), expected)
    assert "window_fn=(128,)" in repr(module)
    with pytest.raises(ValueError, match=r"window must have shape \(win_length=128,\), got \(127,\)"):
        getattr(mps_spectro, name)(**MODULES[name], window_fn=torch.ones(127))
