"""Dynamic front ends against RMVPE's and FCPE's definitions over key shifts and speeds, on every route."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import front_end_cases as cases
import pytest
import torch
import torch.nn.functional as F
from conftest import Route
from torch import Tensor, nn

from mps_spectro import (
    DynamicMelSpectrogramTransform,
    MelSpectrogramTransform,
    diagnostics,
    dynamic_mel_spectrogram,
    dynamic_spectrogram,
    mel_spectrogram,
    melscale_fbanks,
)

KEYS = (-12, -7.3, -5, -0.5, 0, 1, 2, 3, 4.21, 12)
SPEEDS = (0.5, 0.83, 1.0, 1.2, 2.0)
FAST = [(key, SPEEDS[i % len(SPEEDS)]) for i, key in enumerate(KEYS)]
SIZES = {"n_fft": 256, "hop_length": 64}


def by_torch(
    x: Tensor,
    n_fft: int,
    hop: int,
    win: int,
    keyshift: float = 0.0,
    speed: float = 1.0,
    power: float = 1.0,
    target: int | None = None,
    eps: float = 0.0,
    center: bool = True,
    pad_mode: str = "constant",
    normalized: bool = False,
) -> Tensor:
    """dynamic_spectrogram step by step, in float64."""
    factor = 2.0 ** (keyshift / 12)
    sizes = max(1, round(n_fft * factor)), max(1, round(hop * speed)), max(1, round(win * factor))
    window = torch.hann_window(sizes[2]).double()
    spec = torch.stft(x.double(), *sizes, window, center, pad_mode, normalized, return_complex=True)
    squares = spec.real**2 + spec.imag**2
    weight = sizes[0] ** -0.5 if normalized else 1.0
    if power == 1:
        s = (squares + eps * weight**2).sqrt()
    else:
        s = squares ** (power / 2) + eps * weight**power
    if target is None:
        return s
    s = F.pad(s, (0, 0, 0, max(0, target - s.shape[-2])))[..., :target, :]
    return s * (win / sizes[2]) ** power


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_fft", "hop", "keyshift", "speed", "expected"),
    [
        (1024, 160, 3, 1.2, (1218, 192)),
        (1024, 160, -2, 1.1, (912, 176)),
        (1024, 160, 5, 1.0, (1367, 160)),
        (1024, 160, 12, 1.0, (2048, 160)),
        (1024, 160, -12, 0.5, (512, 80)),
        (400, 5, -5, 0.5, (300, 2)),
        (400, 7, 0, 0.5, (400, 4)),
        (400, 1, 0, 0.2, (400, 1)),
    ],
)
def test_sizes_round_half_to_even(
    n_fft: int, hop: int, keyshift: float, speed: float, expected: tuple[int, int]
) -> None:
    got = dynamic_spectrogram(torch.zeros(3000), n_fft=n_fft, hop_length=hop, keyshift=keyshift, speed=speed)
    new_fft, new_hop = expected
    assert got.shape == (new_fft // 2 + 1, 1 + (3000 + 2 * (new_fft // 2) - new_fft) // new_hop)


@pytest.mark.parametrize("target", [None, 129, 100, 201])
@pytest.mark.parametrize("power", [1.0, 2.0, 1.5])
def test_dynamic_spectrogram(route: Route, target: int | None, power: float) -> None:
    x = cases.noise(2, 3000)
    for keyshift, speed in FAST:
        expected = by_torch(x, 256, 64, 200, keyshift, speed, power, target, 1e-2)
        got = dynamic_spectrogram(
            x.to(route.device),
            **SIZES,
            win_length=200,
            keyshift=keyshift,
            speed=speed,
            power=power,
            target_n_freqs=target,
            magnitude_eps=1e-2,
        )
        assert cases.relative(got, expected) <= cases.LINEAR, (keyshift, speed)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("center", [True, False])
def test_padding_and_normalization(route: Route, pad_mode: str, center: bool) -> None:
    x = cases.noise(2, 3000)
    options: dict[str, Any] = {"center": center, "pad_mode": pad_mode, "normalized": True}
    for public in (False, True):
        got = dynamic_spectrogram(x.to(route.device), **SIZES, keyshift=3.3, use_public_stft=public, **options)
        assert cases.relative(got, by_torch(x, 256, 64, 256, 3.3, **options)) <= cases.LINEAR


def test_a_given_window(route: Route) -> None:
    x = cases.noise(2, 3000).to(route.device)
    window = torch.hann_window(304).to(route.device)
    expected = dynamic_spectrogram(x, **SIZES, keyshift=3)
    assert torch.equal(dynamic_spectrogram(x, **SIZES, keyshift=3, window=window), expected)
    with pytest.raises(ValueError, match=r"window must have shape \(win_length=304,\)"):
        dynamic_spectrogram(x, **SIZES, keyshift=3, window=window[:-1])
    assert torch.equal(dynamic_spectrogram(x, **SIZES, keyshift=3, window_fn=window), expected)
    sizes = {"sample_rate": 16000, **SIZES, "n_mels": 30}
    module = DynamicMelSpectrogramTransform(**sizes, window_fn=torch.hann_window(256)).to(route.device)
    assert torch.equal(module(x), DynamicMelSpectrogramTransform(**sizes).to(route.device)(x))
    with pytest.raises(ValueError, match=r"window must have shape \(win_length=304,\)"):
        module(x, keyshift=3)


# --- RMVPE and FCPE ---------------------------------------------------------------------------------------------------


def compare(name: str, x: Tensor, key: float, speed: float, route: Route) -> None:
    reference = cases.rmvpe if name == "rmvpe" else cases.fcpe
    module = DynamicMelSpectrogramTransform.preset(name).to(route.device)
    got = module(x.to(route.device), keyshift=key, speed=speed)
    assert cases.absolute(got, reference(x, key, speed)) <= 2e-5, (key, speed)


@pytest.mark.parametrize("name", ["rmvpe", "fcpe"])
def test_projects(route: Route, name: str) -> None:
    x = 0.3 * cases.noise(2, 8000)
    for key, speed in FAST:
        compare(name, x, key, speed, route)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmvpe", "fcpe"])
@pytest.mark.parametrize("speed", SPEEDS)
def test_projects_over_all_keys_and_speeds(route: Route, name: str, speed: float) -> None:
    for step in range(-24, 25):
        compare(name, 0.3 * cases.noise(2, 8000), step / 2, speed, route)


def test_fcpe_pads_short_signals_by_zeros(route: Route) -> None:
    for length in (100, 432, 433, 600, 1025):
        for key in (-4, 0, 5):
            compare("fcpe", 0.3 * cases.noise(1, length), key, 1.0, route)


def test_rmvpe_without_centring_by_call(route: Route) -> None:
    x = 0.3 * cases.noise(2, 8000)
    module = DynamicMelSpectrogramTransform.preset("rmvpe").to(route.device)
    got = module(x.to(route.device), keyshift=2, center=False)
    assert cases.absolute(got, cases.rmvpe(x, 2, 1, center=False)) <= 2e-5
    assert cases.absolute(module(x.to(route.device), keyshift=2), cases.rmvpe(x, 2)) <= 2e-5


def test_fcpe_with_a_bank_of_its_own(route: Route) -> None:
    x = 0.3 * cases.noise(2, 8000)
    basis = torch.rand(128, 1025) * 0.01
    options = {"sample_rate": 16000, "n_fft": 2048, "hop_length": 160, "pad_mode": "reflect", "padding": "same"}
    options.update(magnitude_eps=1e-9, output_scale="log")
    expected = cases.fcpe(x, 2, 1, basis, 2048)
    device_basis = basis.to(route.device)
    got = dynamic_mel_spectrogram(x.to(route.device), **options, keyshift=2, mel_basis=device_basis)
    assert cases.absolute(got, expected) <= 2e-5
    module = DynamicMelSpectrogramTransform(**options, mel_basis=basis).to(route.device)
    assert torch.equal(module(x.to(route.device), keyshift=2), got)


# --- function and module ----------------------------------------------------------------------------------------------


def test_function_and_module_agree(route: Route) -> None:
    x = cases.noise(2, 3, 3000).to(route.device)
    for options in (
        {},
        {"output_scale": "db", "norm": "slaney", "normalized": True},
        {"output_scale": "log", "power": 2.0},
    ):
        arguments = {"sample_rate": 16000, **SIZES, "n_mels": 30, **options}
        module = DynamicMelSpectrogramTransform(**arguments).to(route.device)
        for key, speed in ((0.0, 1.0), (-2.0, 1.1), (7.0, 0.9)):
            got = dynamic_mel_spectrogram(x, **arguments, keyshift=key, speed=speed)
            assert torch.equal(got, module(x, keyshift=key, speed=speed))
            assert got.shape[:3] == (2, 3, 30)


def test_without_a_shift_it_is_the_mel_spectrogram(route: Route) -> None:
    x = cases.noise(3000).to(route.device)
    arguments = {"sample_rate": 16000, **SIZES, "n_mels": 30, "power": 1.0, "output_scale": "log"}
    assert torch.equal(dynamic_mel_spectrogram(x, **arguments), mel_spectrogram(x, **arguments))


def test_a_bank_of_another_width_cuts_the_spectrum(route: Route) -> None:
    x = cases.noise(2, 3000)
    for width in (80, 129, 200):
        basis = torch.rand(11, width)
        for key in (-5.0, 0.0, 5.0):
            expected = basis.double() @ by_torch(x, 256, 64, 256, key, target=width)
            got = dynamic_mel_spectrogram(
                x.to(route.device), sample_rate=1, **SIZES, keyshift=key, mel_basis=basis.to(route.device)
            )
            assert cases.relative(got, expected) <= cases.LINEAR


def test_a_bank_written_to_between_calls_counts(route: Route) -> None:
    x = cases.noise(2, 3000).to(route.device)
    module = DynamicMelSpectrogramTransform(sample_rate=16000, **SIZES, n_mels=30).to(route.device)
    for key in (0.0, 3.0, -3.0):
        before = module(x, keyshift=key)
        module.mel_basis.mul_(2.0)
        assert cases.relative(module(x, keyshift=key), 2.0 * before) < 1e-6


def test_gradients_to_signal_and_bank(route: Route) -> None:
    x = cases.noise(2, 3000)
    bank = melscale_fbanks(129, 0.0, None, 30, 16000) + 0.01
    for key in (-4.0, 0.0, 4.0):
        ours = [tensor.to(route.device).requires_grad_() for tensor in (x.clone(), bank.clone())]
        exact = [tensor.double().requires_grad_() for tensor in (x, bank)]
        arguments = {"sample_rate": 16000, **SIZES, "keyshift": key, "output_scale": "log"}
        got = dynamic_mel_spectrogram(ours[0], mel_basis=ours[1], **arguments)
        expected = (exact[1] @ _shifted_magnitudes(exact[0], key)).clamp(min=1e-5).log()
        weights = cases.noise(*got.shape, seed=4)
        (got * weights.to(route.device)).sum().backward()
        (expected * weights.double()).sum().backward()
        for one, other in zip(ours, exact):
            assert cases.relative(one.grad, other.grad) < 2e-5


def _shifted_magnitudes(x: Tensor, key: float) -> Tensor:
    return by_torch(x, 256, 64, 256, key, target=129)


def test_silence_has_finite_gradients(route: Route) -> None:
    for name in ("rmvpe", "fcpe"):
        module = DynamicMelSpectrogramTransform.preset(name).to(route.device)
        x = torch.zeros(1, 4000, device=route.device).requires_grad_()
        module(x, keyshift=2.5).sum().backward()
        assert x.grad.isfinite().all()


def test_module_as_module() -> None:
    x = cases.noise(2, 3000)
    module = DynamicMelSpectrogramTransform(sample_rate=16000, **SIZES, n_mels=30, window_fn="hamming")
    expected = module(x, keyshift=1.5)
    assert module.state_dict() == {} and {name for name, _ in module.named_buffers()} == {"window", "mel_basis"}
    assert torch.equal(copy.deepcopy(module)(x, keyshift=1.5), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x, keyshift=1.5), expected)
    assert torch.equal(module.half()(x, keyshift=1.5), expected)
    assert repr(module) == (
        "DynamicMelSpectrogramTransform(sample_rate=16000, n_fft=256, hop_length=64, n_mels=30, window_fn='hamming')"
    )


def test_a_parameter_as_bank_is_one_of_the_module() -> None:
    bank = nn.Parameter(torch.rand(8, 129))
    module = DynamicMelSpectrogramTransform(sample_rate=16000, **SIZES, mel_basis=bank)
    assert [name for name, _ in module.named_parameters()] == ["mel_basis"]
    assert set(module.state_dict()) == {"mel_basis"}
    module(cases.noise(2, 3000), keyshift=2.0).sum().backward()
    assert bank.grad is not None and bank.grad.abs().sum() > 0


def test_compiles_whole() -> None:
    module = DynamicMelSpectrogramTransform.preset("rmvpe")
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    x = 0.3 * cases.noise(1, 4000)
    for key in (0.0, 2.0, 3.5):
        assert cases.absolute(compiled(x, keyshift=key), module(x, keyshift=key)) < 1e-5


# --- many sizes -------------------------------------------------------------------------------------------------------


def test_a_sweep_compiles_few_kernels_and_keeps_memory(route: Route) -> None:
    if not route.kernels:
        pytest.skip("compiles nothing")
    rng = random.Random(1)
    module = DynamicMelSpectrogramTransform.preset("rmvpe").to(route.device)
    reference = DynamicMelSpectrogramTransform.preset("rmvpe", use_mps_kernels=False).to(route.device)
    x = 0.3 * cases.noise(1, 3000).to(route.device)
    diagnostics(reset=True)
    for step in range(200):
        key, speed = rng.uniform(-12, 12), rng.uniform(0.5, 2.0)
        got = module(x, keyshift=key, speed=speed)
        if step % 8 == 0:
            assert cases.absolute(got, reference(x, keyshift=key, speed=speed)) < 5e-5, (key, speed)
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == {"bands": 200}
    assert report["compiles"]["count"] <= 12
    for name, cache in report["caches"].items():
        assert cache["size"] <= cache["limit"], name


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"keyshift": float("nan")}, ValueError, "keyshift must be finite"),
        ({"keyshift": float("inf")}, ValueError, "keyshift must be finite"),
        ({"speed": 0.0}, ValueError, "speed must be positive"),
        ({"speed": float("inf")}, ValueError, "speed must be positive"),
        ({"pad_mode": "mirror"}, ValueError, "pad_mode must be one of"),
        ({"magnitude_eps": -1e-9}, ValueError, "magnitude_eps must be at least 0"),
        ({"padding": "valid"}, TypeError, "padding must be an int"),
        ({"padding": "same", "hop_length": 300}, ValueError, "hop_length must not exceed"),
        ({"x": torch.zeros(100), "pad_mode": "reflect"}, ValueError, "at least 129 samples"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(3000), **SIZES, **change}
    with pytest.raises(error, match=words):
        dynamic_spectrogram(arguments["x"], **{k: v for k, v in arguments.items() if k != "x"})
    with pytest.raises(error, match=words):
        arguments.pop("x"), dynamic_mel_spectrogram(change.get("x", torch.zeros(3000)), sample_rate=16000, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mel_basis": torch.ones(129)}, ValueError, r"mel_basis must have shape \(n_mels, n_freqs\)"),
        ({"mel_basis": torch.ones(2, 3, 4)}, ValueError, r"mel_basis must have shape"),
        ({"mel_basis": [[1.0]]}, TypeError, "mel_basis must be a floating point tensor"),
        ({"output_scale": "loud"}, ValueError, "output_scale must be one of"),
        ({"log_mode": "root"}, ValueError, "log_mode must be one of"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"norm": "area"}, ValueError, "norm must be None"),
    ],
    ids=cases.name,
)
def test_bad_arguments_of_the_mel_function_and_module(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    arguments = {"sample_rate": 16000, **SIZES, **change}
    with pytest.raises(error, match=words):
        dynamic_mel_spectrogram(torch.zeros(3000), **arguments)
    with pytest.raises(error, match=words):
        DynamicMelSpectrogramTransform(**arguments)


def test_target_n_freqs_must_be_positive() -> None:
    with pytest.raises(ValueError, match="target_n_freqs must be positive"):
        dynamic_spectrogram(torch.zeros(3000), **SIZES, target_n_freqs=0)


def test_presets_of_the_static_module_are_keyshift_0() -> None:
    x = 0.3 * cases.noise(2, 8000)
    for name in ("rmvpe", "fcpe"):
        assert torch.equal(DynamicMelSpectrogramTransform.preset(name)(x), MelSpectrogramTransform.preset(name)(x))
