"""Tensors that functions share: made once, also for compiled graphs, and never those of a tracer or a transform."""

from __future__ import annotations

from typing import Any, Callable

import front_end_cases as cases
import pytest
import torch
from conftest import require_route
from graphs import counting
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import mps_spectro
from mps_spectro import _banks, _shared
from mps_spectro._cache import clear_caches
from mps_spectro.filters import mel_bank

SMALL: dict[str, Any] = {"sample_rate": 8000, "n_fft": 128, "hop_length": 32}
FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "mel_spectrogram": lambda x: mps_spectro.mel_spectrogram(x, **SMALL, n_mels=12),
    "dynamic_mel_spectrogram": lambda x: mps_spectro.dynamic_mel_spectrogram(x, **SMALL, n_mels=12, speed=1.5),
    "mfcc": lambda x: mps_spectro.mfcc(x, **SMALL, n_mels=12, n_mfcc=5),
    "onset_strength": lambda x: mps_spectro.onset_strength(x, **SMALL, n_mels=12),
    "chroma_stft": lambda x: mps_spectro.chroma_stft(x, **SMALL),
    "madmom_log_spectrogram": lambda x: mps_spectro.madmom_log_spectrogram(
        x, sample_rate=8000, fps=100, frame_size=256, fmax=3000.0
    ),
    "spectral_features": lambda x: mps_spectro.spectral_features(
        x, **SMALL, n_mels=24, include=("chroma_stft", "mfcc")
    )["mfcc"],
}


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time that a bank is read from its device to be prepared for a kernel."""
    made: list[str] = []
    for name in ("_build", "_build_columns"):
        build = getattr(_banks, name)
        monkeypatch.setattr(_banks, name, lambda basis, name=name, build=build: made.append(name) or build(basis))
    return made


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_compiled_function_prepares_its_bank_once(name: str, builds: list[str]) -> None:
    route = require_route("host")
    clear_caches()
    x = cases.noise(2, 3000)
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend="aot_eager")
    with mps_spectro.use_backend(route.backend):
        for call in range(3):
            leaf = x.clone().requires_grad_()
            compiled(leaf).sum().backward()
            assert cases.absolute(compiled(x), FUNCTIONS[name](x)) < 1e-4
            if call == 0:
                assert "_build" in builds
                builds.clear()
    assert not builds


def test_several_banks_in_a_graph_and_other_arguments_at_other_calls() -> None:
    graphs, backend = counting()

    def function(x: Tensor, n_mels: int, f_min: float) -> Tensor:
        options = {"mel_scale": "slaney", "output_scale": "linear"}
        first = mps_spectro.mel_spectrogram(x, **SMALL, n_mels=n_mels, f_min=f_min, **options)
        second = mps_spectro.mel_spectrogram(x, **SMALL, n_mels=n_mels, f_min=f_min + 10.0, **options)
        return torch.cat([first, second, mps_spectro.chroma_stft(x, **SMALL)], -2)

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    x = cases.noise(1, 1000)
    arguments = [(8, 0.0), (9, 0.0), (10, 0.0), (8, 50.0), (8, 60.0), (9, 70.0)]
    for given in arguments * 2:
        assert cases.relative(compiled(x, *given), function(x, *given)) < 1e-6
    assert len(graphs) == len(arguments)


@pytest.mark.parametrize("dynamic", [True, False])
def test_other_lengths_and_shapes_with_the_same_bank(dynamic: bool) -> None:
    compiled = torch.compile(FUNCTIONS["mfcc"], fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((2, 1000), (2, 1100), (3, 1200)):
        x = cases.noise(*shape)
        assert cases.absolute(compiled(x), FUNCTIONS["mfcc"](x)) < 1e-4


def test_a_graph_whose_tensors_had_to_make_room_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shared, "_held", _shared._Held(2))
    graphs, backend = counting()
    x = cases.noise(1, 1000)

    def function(x: Tensor, n_mels: int) -> Tensor:
        return mps_spectro.mel_spectrogram(x, **SMALL, n_mels=n_mels, window=torch.ones(128))

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for n_mels in (7, 8, 9, 7):
        assert torch.equal(compiled(x, n_mels), function(x, n_mels))
    assert len(graphs) == 4 and len(_shared._held._names) == 2


def test_compiled_in_inference_mode_and_trained_later() -> None:
    clear_caches()
    compiled = torch.compile(FUNCTIONS["mel_spectrogram"], fullgraph=True, backend="aot_eager")
    x = cases.noise(1, 1000)
    with torch.inference_mode():
        compiled(x)
    for function in (compiled, FUNCTIONS["mel_spectrogram"]):
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        assert leaf.grad is not None and leaf.grad.abs().max() > 0


BANK = (65, 0.0, 4000.0, 11, 8000)


def test_nothing_of_a_tracer_or_a_transform_is_kept() -> None:
    clear_caches()
    with FakeTensorMode():
        assert type(mel_bank(*BANK)) is not Tensor
    power = torch.rand(3, 65)
    rows = torch.vmap(lambda p: torch.func.grad(lambda q: (mel_bank(*BANK) @ q).sum())(p))(power)
    bank = mel_bank(*BANK)
    assert type(bank) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(bank)
    assert torch.allclose(rows, bank.sum(0).expand(3, -1)) and mel_bank(*BANK) is bank


def test_compiled_under_vmap() -> None:
    clear_caches()
    x = cases.noise(3, 1000)
    function = FUNCTIONS["mfcc"]
    compiled = torch.compile(lambda x: torch.vmap(function)(x), fullgraph=True, backend="aot_eager")
    assert cases.absolute(compiled(x), function(x)) < 1e-4
    assert cases.absolute(function(x), compiled(x)) < 1e-4


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["mel_spectrogram", "mfcc"])
def test_exported_with_its_bank(name: str, strict: bool) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[name](x)

    x = cases.noise(2, 1000)
    program = torch.export.export(Model(), (x,), strict=strict)
    assert not any("mps_spectro" in str(node.target) for node in program.graph.nodes)
    assert cases.absolute(program.module()(x), FUNCTIONS[name](x)) < 1e-4
