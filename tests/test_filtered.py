"""Spectrograms through a given bank against numpy in float64 over every route, and what is expected of the module."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from typing import Any, Callable

import descriptor_cases
import front_end_cases as cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor, nn

from mps_spectro import (
    FilteredSpectrogramTransform,
    MelSpectrogramTransform,
    diagnostics,
    filtered_spectrogram,
    log_triangular_fbanks,
    melscale_fbanks,
)

SMALL = {"n_fft": 400, "hop_length": 100}

# arguments of ours, which `by_numpy` takes as well
CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"n_fft": 256, "hop_length": 64},
    {"n_fft": 400, "hop_length": 160, "power": 2.0},
    {"n_fft": 512, "hop_length": 128, "power": 1.5},
    {"n_fft": 512, "hop_length": None, "win_length": 400},
    {"n_fft": 1024, "hop_length": 441, "periodic": False},
    {"n_fft": 1024, "hop_length": 1024, "window_fn": "hamming"},
    {"n_fft": 1218, "hop_length": 300, "window_fn": "blackman", "periodic": False},
    {"n_fft": 1000, "hop_length": 333, "window_fn": "rect", "win_length": 700},
    {"n_fft": 801, "hop_length": 200},
    {"n_fft": 2048, "hop_length": 441, "center_pad_mode": "constant"},
    {"n_fft": 2048, "hop_length": 441, "center_pad_mode": "constant", "center_tail_pad": "minimal"},
    {"n_fft": 512, "hop_length": 600, "center_pad_mode": "constant", "center_tail_pad": "minimal"},
    {"n_fft": 1024, "hop_length": 256, "center_pad_mode": "replicate"},
    {"n_fft": 1024, "hop_length": 256, "center_pad_mode": "circular"},
    {"n_fft": 400, "hop_length": 100, "center": False},
    {"n_fft": 800, "hop_length": 200, "win_length": 600, "center": False, "power": 2.0},
    {"n_fft": 512, "hop_length": 128, "normalized": True},
    {"n_fft": 512, "hop_length": 128, "normalized": "frame_length", "power": 2.0},
    {"n_fft": 512, "hop_length": 128, "normalized": "window", "win_length": 300},
    {"n_fft": 512, "hop_length": 128, "nyquist": False},
    {"n_fft": 801, "hop_length": 200, "nyquist": False, "power": 2.0},
    {"n_fft": 1024, "hop_length": 441, "nyquist": False, "center_pad_mode": "constant", "center_tail_pad": "minimal"},
    {"n_fft": 512, "hop_length": 128, "n_bands": 1},
    {"n_fft": 300, "hop_length": 75, "n_bands": 200},
    {"n_fft": 64, "hop_length": 1, "n_bands": 5},
]
_NUMPY_PADS = {"replicate": "edge", "circular": "wrap", "reflect": "reflect", "constant": "constant"}
_WINDOWS = {"hann": np.hanning, "hamming": np.hamming, "blackman": np.blackman, "rect": np.ones}


def dense_bank(n_freqs: int, n_bands: int, seed: int = 3) -> Tensor:
    """Weights everywhere, of which nobody could take a transpose for the bank."""
    return cases.noise(n_freqs, n_bands, seed=seed).abs() * torch.linspace(0.1, 1.0, n_bands)


def split(case: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The bank and the arguments of a configuration."""
    given = {"n_fft": 2048, "hop_length": 512, **case}
    nyquist, n_bands = given.pop("nyquist", True), given.pop("n_bands", 24)
    return dense_bank(given["n_fft"] // 2 + int(nyquist), n_bands), given


def by_numpy(
    x: np.ndarray,
    bank: np.ndarray,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    power: float = 1.0,
    window_fn: str = "hann",
    periodic: bool = True,
    center: bool = True,
    center_pad_mode: str = "reflect",
    center_tail_pad: str = "symmetric",
    normalized: bool | str = False,
) -> np.ndarray:
    """Linear bands (n_bands, n_frames) of one signal in float64."""
    hop, length = hop_length or n_fft // 4, win_length or n_fft
    short = _WINDOWS[window_fn](length + 1)[:-1] if periodic else _WINDOWS[window_fn](length)
    window = np.zeros(n_fft)
    window[(n_fft - length) // 2 :][:length] = short
    y = x.astype(np.float64)
    count = None
    if center:
        half, tail = n_fft // 2, n_fft // 2
        if center_tail_pad == "minimal":
            count = -(-len(y) // hop)
            tail = count * hop + n_fft
        y = np.pad(y, (half, tail), mode=_NUMPY_PADS[center_pad_mode])
    count = count or 1 + (len(y) - n_fft) // hop
    frames = np.stack([y[m * hop :][:n_fft] * window for m in range(count)])
    magnitudes = np.abs(np.fft.rfft(frames))
    if normalized in (True, "frame_length"):
        magnitudes /= math.sqrt(n_fft)
    elif normalized == "window":
        magnitudes /= math.sqrt((window**2).sum())
    return bank.astype(np.float64).T @ (magnitudes**power).T[: len(bank)]


def expected_of(x: Tensor, bank: Tensor, **given: Any) -> Tensor:
    return torch.from_numpy(by_numpy(x.double().numpy(), bank.double().numpy(), **given))


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "mixture", "clipped"])
@pytest.mark.parametrize("case", CONFIGURATIONS, ids=cases.name)
def test_configurations(case: dict[str, Any], kind: str) -> None:
    bank, given = split(case)
    x = descriptor_cases.signal(16000, kind)
    expected = expected_of(x, bank, **given)
    got = filtered_spectrogram(x, filterbank=bank, **given)
    assert cases.relative(got, expected) <= cases.LINEAR
    assert torch.equal(FilteredSpectrogramTransform(filterbank=bank, **given)(x), got)
    # the window of a module has the digits of float32
    assert cases.relative(filtered_spectrogram(x.double(), filterbank=bank, **given), expected) < 1e-13


@pytest.mark.parametrize("case", CONFIGURATIONS[2::4], ids=cases.name)
def test_routes(route: Route, case: dict[str, Any]) -> None:
    bank, given = split(case)
    x = 0.3 * cases.noise(2, 4000)
    expected = torch.stack([expected_of(one, bank, **given) for one in x])
    got = filtered_spectrogram(x.to(route.device), filterbank=bank.to(route.device), **given)
    assert cases.relative(got, expected) <= cases.LINEAR
    assert got.shape[-1] == 1 or got.stride(-2) == 1


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(
    ("options", "convert"),
    [
        ({"output_scale": "log10_plus_one"}, lambda y, _: (y + 1.0).log10()),
        ({"output_scale": "log"}, lambda y, _: y.clamp(min=1e-5).log()),
        ({"output_scale": "log", "log_amin": 2.0}, lambda y, _: y.clamp(min=2.0).log()),
        ({"output_scale": "log", "log_mode": "add", "log_amin": 1e-3}, lambda y, _: (y + 1e-3).log()),
        ({"output_scale": "log", "log_mode": "log1p"}, lambda y, _: (1e5 * y).log1p()),
        ({"output_scale": "log", "log_mode": "log1p", "log_scale": 1.0}, lambda y, _: y.log1p()),
        ({"output_scale": "db"}, lambda y, factor: factor * y.clamp(min=1e-10).log10()),
        (
            {"output_scale": "db", "top_db": 12.0},
            lambda y, factor: torch.maximum(
                factor * y.log10(), (factor * y.log10()).amax((-2, -1), keepdim=True) - 12.0
            ),
        ),
    ],
    ids=cases.name,
)
def test_scales(route: Route, options: dict[str, Any], convert: Callable[..., Tensor], power: float) -> None:
    bank = dense_bank(201, 24)
    x = cases.noise(3, 4000) * torch.tensor([[1.0], [1e-2], [30.0]])
    linear = torch.stack([expected_of(one, bank, power=power, **SMALL) for one in x])
    got = filtered_spectrogram(x.to(route.device), filterbank=bank.to(route.device), power=power, **SMALL, **options)
    assert cases.absolute(got, convert(linear, 20.0 if power == 1 else 10.0)) <= cases.LOGARITHMIC


def test_one_kernel_and_nothing_else(route: Route) -> None:
    bank = log_triangular_fbanks(1024, 44100, 12, f_min=30.0, f_max=17000.0)
    module = FilteredSpectrogramTransform(filterbank=bank, hop_length=441, output_scale="log10_plus_one")
    module = module.to(route.device)
    x = cases.noise(2, 9000).to(route.device)
    module(x)
    diagnostics(reset=True)
    module(x)
    filtered_spectrogram(x, filterbank=module.filterbank, hop_length=441, output_scale="log10_plus_one")
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == ({"bands": 2} if route.kernels else {})
    assert report["torch_route"] == ({} if route.kernels else {"backend torch": 2})


def test_use_mps_kernels_false_takes_torch(route: Route) -> None:
    x, bank = cases.noise(2, 4000).to(route.device), dense_bank(201, 24).to(route.device)
    expected = filtered_spectrogram(x, filterbank=bank, **SMALL)
    diagnostics(reset=True)
    got = filtered_spectrogram(x, filterbank=bank, **SMALL, use_mps_kernels=False)
    assert diagnostics(reset=True)["torch_route"] == {"use_mps_kernels=False": 1}
    assert cases.relative(got, expected) <= cases.LINEAR


@pytest.mark.parametrize("name", ["music-stereo-44k1-195s.ogg", "speech-mono-48k-1s.wav"])
def test_recordings(name: str) -> None:
    x, sample_rate = recording(name, 1.0, 0.0 if name.startswith("speech") else 60.0)
    bank = log_triangular_fbanks(1024, sample_rate, 24, f_min=27.5, f_max=16000.0)
    given = {"filterbank": bank, "sample_rate": sample_rate, "hop_length": 441}
    linear = torch.stack([expected_of(channel, bank, hop_length=441) for channel in x])
    assert cases.relative(filtered_spectrogram(x, **given), linear) <= cases.LINEAR
    got = filtered_spectrogram(x, output_scale="log10_plus_one", **given)
    assert cases.absolute(got, (linear + 1.0).log10()) <= 2e-6
    got = filtered_spectrogram(x, output_scale="db", top_db=50.0, **given)
    db = 20.0 * linear.log10()
    assert cases.absolute(got, torch.maximum(db, db.amax((-2, -1), keepdim=True) - 50.0)) <= 1e-3


def test_a_mel_bank_gives_the_mel_spectrogram() -> None:
    x = cases.noise(2, 4000)
    mel = MelSpectrogramTransform(sample_rate=16000, **SMALL, n_mels=40, pad_mode="reflect", output_scale="linear")
    bank = melscale_fbanks(201, 0.0, None, 40, 16000).t()
    assert torch.equal(filtered_spectrogram(x, filterbank=bank, power=2.0, **SMALL), mel(x))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 2, 3)])
def test_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    x, bank = cases.noise(*shape, 2000), dense_bank(201, 24)
    got = filtered_spectrogram(x, filterbank=bank, **SMALL)
    assert got.shape == (*shape, 24, 21)
    flat = x.reshape(-1, 2000)
    expected = torch.stack([expected_of(one, bank, **SMALL) for one in flat]).reshape(got.shape)
    assert cases.relative(got, expected) <= cases.LINEAR
    apart = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(filtered_spectrogram(apart, filterbank=bank, **SMALL), got)


def test_top_db_leaves_other_examples_alone() -> None:
    bank, x = dense_bank(201, 24), cases.noise(3, 4000) * torch.tensor([[1e-4], [1.0], [1e4]])
    options = {"filterbank": bank, **SMALL, "output_scale": "db", "top_db": 5.0}
    whole = filtered_spectrogram(x, **options)
    for one, alone in zip(whole, x):
        assert cases.absolute(filtered_spectrogram(alone, **options), one) < 1e-5
        assert (one.max() - one.min()).item() == pytest.approx(5.0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(route: Route, dtype: torch.dtype) -> None:
    x = cases.noise(2, 4000).to(dtype).to(route.device)
    bank = dense_bank(201, 24).to(dtype).to(route.device)
    module = FilteredSpectrogramTransform(filterbank=bank, **SMALL).to(route.device)
    expected = filtered_spectrogram(x.float(), filterbank=bank.float(), **SMALL)
    assert torch.equal(filtered_spectrogram(x, filterbank=bank, **SMALL), expected)
    assert torch.equal(module(x), expected) and expected.dtype == torch.float32
    module.to(dtype)
    assert module.window.dtype == module.filterbank.dtype == torch.float32 and torch.equal(module(x), expected)


def test_a_given_window() -> None:
    x, bank = cases.noise(2, 4000), dense_bank(201, 24)
    for window, by_name in (
        (torch.hamming_window(400), {"window_fn": "hamming"}),
        (torch.hann_window(300, periodic=False), {"win_length": 300, "periodic": False}),
        (torch.hann_window(400), {"window_fn": torch.hann_window}),
        (torch.hann_window(400), {"window_fn": lambda length: torch.hann_window(length)}),
    ):
        given = {**by_name, "window_fn": window, "filterbank": bank, **SMALL}
        expected = filtered_spectrogram(x, **{"window_fn": "hann", **by_name}, filterbank=bank, **SMALL)
        assert torch.equal(filtered_spectrogram(x, **given), expected)
        module = FilteredSpectrogramTransform(**given)
        window.zero_()
        assert torch.equal(module(x), expected)


# --- short and plain signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True, "window"])
@pytest.mark.parametrize("pad_mode", ["reflect", "circular", "constant"])
@pytest.mark.parametrize("length", [1, 2, 100, 199, 200, 201])
def test_short_signals(length: int, pad_mode: str, normalized: bool | str) -> None:
    x, bank = cases.noise(length), dense_bank(201, 24)
    too_short = length < {"reflect": 201, "circular": 200, "constant": 0}[pad_mode]
    given = {**SMALL, "normalized": normalized}
    expected = expected_of(x, bank, center_pad_mode="constant" if too_short else pad_mode, **given)
    got = filtered_spectrogram(x, filterbank=bank, center_pad_mode=pad_mode, **given)
    assert cases.relative(got, expected) <= cases.LINEAR
    module = FilteredSpectrogramTransform(filterbank=bank, center_pad_mode=pad_mode, **given)
    assert torch.equal(module(x), got)
    module(cases.noise(1000))
    assert torch.equal(module(x), got)


@pytest.mark.parametrize("scale", ["linear", "log", "log10_plus_one", "db"])
@pytest.mark.parametrize("kind", ["silence", "dc", "impulse", "clipped", "faint", "loud"])
def test_plain_signals(route: Route, kind: str, scale: str) -> None:
    x, bank = descriptor_cases.signal(8000, kind), dense_bank(201, 24)
    got = filtered_spectrogram(x.to(route.device), filterbank=bank.to(route.device), output_scale=scale, **SMALL)
    assert got.isfinite().all()
    linear = expected_of(x, bank, **SMALL)
    convert = {
        "linear": lambda y: y,
        "log": lambda y: y.clamp(min=1e-5).log(),
        "log10_plus_one": lambda y: (y + 1.0).log10(),
        "db": lambda y: 20.0 * y.clamp(min=1e-10).log10(),
    }[scale]
    limit = cases.LOGARITHMIC if scale != "linear" else cases.LINEAR * linear.max().item()
    assert cases.absolute(got, convert(linear)) <= limit


def test_what_is_no_number_stays_visible() -> None:
    x = cases.noise(4000)
    x[2000] = torch.nan
    got = filtered_spectrogram(x, filterbank=dense_bank(201, 24), output_scale="log10_plus_one", **SMALL)
    assert got[:, 19:21].isnan().all() and got[:, :17].isfinite().all()


# --- the module -------------------------------------------------------------------------------------------------------


def make(**change: Any) -> FilteredSpectrogramTransform:
    given = {"filterbank": dense_bank(200, 24), **SMALL, "output_scale": "log10_plus_one", **change}
    return FilteredSpectrogramTransform(**given)


def test_copies_pickles_and_state_dicts() -> None:
    x, module = cases.noise(2, 4000), make(window_fn=lambda length: torch.hann_window(length))
    expected = module(x)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    assert torch.equal(torch.load(stored, weights_only=False)(x), expected)
    assert module.state_dict() == {}
    other = make()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), expected)
    assert {name for name, _ in module.named_buffers()} == {"window", "filterbank"} and not list(module.parameters())


def test_the_bank_is_copied_and_followed() -> None:
    x, bank = cases.noise(2, 4000), dense_bank(201, 24)
    module = FilteredSpectrogramTransform(filterbank=bank, **SMALL)
    expected = module(x)
    again = filtered_spectrogram(x, filterbank=bank, **SMALL)
    bank.mul_(2.0)
    assert torch.equal(module(x), expected) and torch.equal(again, expected)
    assert torch.equal(filtered_spectrogram(x, filterbank=bank, **SMALL), 2.0 * expected)
    module.filterbank.mul_(4.0)
    assert torch.equal(module(x), 4.0 * expected)
    module.window.zero_()
    assert not module(x).any() and make()(x).any()


def test_buffers_follow_the_module_or_the_signal(route: Route) -> None:
    module, x = make(), cases.noise(2, 4000).to(route.device)
    stays = module(x)
    assert module.window.device.type == "cpu"
    module.to(route.device)
    assert module.window.device.type == module.filterbank.device.type == route.device
    assert torch.equal(module(x), stays)


def test_a_module_made_in_inference_mode_trains(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    bank = dense_bank(201, 24).to(route.device)
    with torch.inference_mode():
        module = FilteredSpectrogramTransform(filterbank=bank, **SMALL)
        filtered_spectrogram(x, filterbank=bank, **SMALL)
    x.requires_grad_()
    (filtered_spectrogram(x, filterbank=bank, **SMALL) + module.to(route.device)(x)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_attributes_and_repr() -> None:
    module = make(win_length=300, window_fn=torch.hamming_window, sample_rate=16000)
    assert (module.n_fft, module.hop_length, module.win_length, module.n_bands) == (400, 100, 300, 24)
    assert (module.sample_rate, module.output_scale, module.center_pad_mode) == (16000, "log10_plus_one", "reflect")
    assert repr(module) == (
        "FilteredSpectrogramTransform(filterbank=(200, 24), sample_rate=16000, n_fft=400, hop_length=100, "
        "win_length=300, output_scale='log10_plus_one', window_fn=hamming_window)"
    )


def test_a_parameter_as_bank_learns(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    module = make(filterbank=nn.Parameter(dense_bank(200, 8).to(route.device))).to(route.device)
    assert [name for name, _ in module.named_parameters()] == ["filterbank"]
    target = make(filterbank=dense_bank(200, 8, seed=5)).to(route.device)(x)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (module(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"power": 2.0, "output_scale": "log10_plus_one"},
        {"output_scale": "log", "log_mode": "add"},
        {"power": 1.5, "output_scale": "db", "top_db": 20.0, "normalized": True},
        {"center_pad_mode": "constant", "center_tail_pad": "minimal", "output_scale": "log10_plus_one"},
    ],
    ids=cases.name,
)
@pytest.mark.parametrize("n_freqs", [8, 9])
def test_gradcheck(options: dict[str, Any], n_freqs: int) -> None:
    x = cases.noise(2, 30, seed=1).double().requires_grad_()
    bank = dense_bank(n_freqs, 4).double().requires_grad_()
    window = (torch.hann_window(16, dtype=torch.float64) + 0.1).requires_grad_()

    def function(x: Tensor, bank: Tensor, window: Tensor) -> Tensor:
        return filtered_spectrogram(x, filterbank=bank, n_fft=16, hop_length=6, window_fn=window, **options)

    assert torch.autograd.gradcheck(function, (x, bank, window))
    if not options and n_freqs == 8:
        assert torch.autograd.gradgradcheck(function, (x[:1, :24].detach().requires_grad_(), bank, window))


def test_gradients_of_kernels(route: Route) -> None:
    x, bank, weights = cases.noise(2, 3000), dense_bank(200, 12), cases.noise(2, 12, 31, seed=2)
    mine = [tensor.clone().to(route.device).requires_grad_() for tensor in (x, bank)]
    exact = [tensor.double().requires_grad_() for tensor in (x, bank)]
    for (signal, basis), like in ((mine, weights.to(route.device)), (exact, weights.double())):
        window = torch.hann_window(400, dtype=signal.dtype).to(signal.device)
        if signal.dtype == torch.float64:
            spec = torch.stft(signal, 400, 100, window=window, return_complex=True).abs()[:, :200]
            got = (torch.einsum("bkf,km->bmf", spec, basis) + 1.0).log10()
        else:
            got = filtered_spectrogram(signal, filterbank=basis, output_scale="log10_plus_one", **SMALL)
        (got * like).sum().backward()
    for one, other in zip(mine, exact):
        assert cases.relative(one.grad, other.grad) < 2e-5


@pytest.mark.parametrize("scale", ["linear", "log", "log10_plus_one", "db"])
@pytest.mark.parametrize("power", [1.0, 2.0, 1.5])
def test_gradients_at_silence(route: Route, scale: str, power: float) -> None:
    x = torch.zeros(2, 3000, device=route.device).requires_grad_()
    make(output_scale=scale, power=power).to(route.device)(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


# --- compile, export, vmap, autocast ----------------------------------------------------------------------------------


def test_compiles_whole() -> None:
    module, bank = make(), dense_bank(201, 24)

    def function(x: Tensor) -> Tensor:
        return filtered_spectrogram(x, filterbank=bank, output_scale="db", top_db=40.0, window_fn="hamming", **SMALL)

    for eager in (module, function):
        compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
        for length in (4000, 4321):
            x, y = (cases.noise(2, length).requires_grad_() for _ in range(2))
            got, expected = compiled(x), eager(y)
            assert cases.absolute(got, expected) < 1e-5
            got.sum().backward()
            expected.sum().backward()
            assert cases.relative(x.grad, y.grad) < 1e-5


def test_get_compiled_is_kept() -> None:
    module, x = make(), cases.noise(2, 4000)
    compiled = module.get_compiled()
    assert module.get_compiled() is compiled
    assert cases.absolute(compiled(x), module(x)) < 1e-5
    short = compiled(x[:, :150])
    assert cases.absolute(short, module(x[:, :150])) < 1e-5
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


def test_exports_without_the_package() -> None:
    module, x = make(center_pad_mode="constant", center_tail_pad="minimal"), cases.noise(2, 4000)
    program = torch.export.export(module, (x,))
    assert not any("mps_spectro" in str(node.target) for node in program.graph.nodes)
    x = cases.noise(2, 4000, seed=1)
    assert cases.absolute(program.module()(x), module(x)) < 1e-5


def test_vmap() -> None:
    module, x = make(), cases.noise(3, 2, 4000)
    assert cases.absolute(torch.vmap(module)(x), module(x)) < 1e-5


def test_autocast_does_not_reach_inside(route: Route) -> None:
    module, x = make().to(route.device), cases.noise(2, 4000).to(route.device)
    expected = module(x)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = module(x)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [0.0] * 4000}, TypeError, "x must be a torch.Tensor"),
        ({"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ({"x": torch.zeros(4000, dtype=torch.complex64)}, TypeError, "x must be real and floating point"),
        ({"x": torch.tensor(1.0)}, ValueError, r"x must have shape \(..., T\)"),
        ({"x": torch.zeros(0, 4000)}, ValueError, "empty batch"),
        ({"x": torch.zeros(399), "center": False}, ValueError, "at least 400 samples"),
        ({"window_fn": torch.ones(400, device="meta")}, ValueError, "window must be on the input's device"),
    ],
    ids=cases.name,
)
def test_bad_signals(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"x": torch.zeros(4000), "filterbank": dense_bank(201, 24), **SMALL, **change}
    with pytest.raises(error, match=words):
        filtered_spectrogram(given.pop("x"), **given)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"filterbank": dense_bank(199, 24)}, ValueError, "filterbank axis 0 must have size n_fft // 2 = 200"),
        ({"filterbank": dense_bank(24, 201)}, ValueError, "filterbank axis 0 must have size"),
        ({"filterbank": torch.ones(201)}, ValueError, r"filterbank must have shape \(n_freqs, n_bands\)"),
        ({"filterbank": torch.ones(201, 0)}, ValueError, r"filterbank must have shape \(n_freqs, n_bands\)"),
        ({"filterbank": torch.ones(1, 201, 24)}, ValueError, r"filterbank must have shape \(n_freqs, n_bands\)"),
        ({"filterbank": np.ones((201, 24))}, TypeError, "filterbank must be a torch.Tensor"),
        ({"filterbank": torch.ones(201, 24, dtype=torch.int64)}, TypeError, "filterbank must be real and floating"),
        ({"filterbank": torch.ones(201, 24, dtype=torch.complex64)}, TypeError, "filterbank must be real and floating"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"n_fft": 0}, ValueError, "n_fft must be positive"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"win_length": 401}, ValueError, "win_length must be in 1"),
        ({"window_fn": "sharp"}, ValueError, "window_fn must be a function or one of"),
        ({"window_fn": torch.ones(399)}, ValueError, "window must have shape"),
        ({"window_fn": torch.ones(400, dtype=torch.int64)}, TypeError, "window must be real and floating point"),
        ({"power": 0.0}, ValueError, "power must be positive"),
        ({"power": -1.0}, ValueError, "power must be positive"),
        ({"output_scale": "loud"}, ValueError, "output_scale must be one of linear, log, log10_plus_one, db"),
        ({"log_mode": "root"}, ValueError, "log_mode must be one of clamp, add, log1p"),
        ({"log_mode": "root", "output_scale": "log10_plus_one"}, ValueError, "log_mode must be one of"),
        ({"log_amin": 0.0}, ValueError, "log_amin must be positive"),
        ({"log_scale": 0.0}, ValueError, "log_scale must be positive"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"normalized": "energy"}, ValueError, "normalized must be False, True"),
        ({"center": 1}, TypeError, "center must be True or False"),
        ({"center_pad_mode": "mirror"}, ValueError, "pad_mode must be one of"),
        ({"center_tail_pad": "none"}, ValueError, "center_tail_pad must be one of"),
        ({"center_tail_pad": "minimal"}, ValueError, "must go with pad_mode='constant'"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"filterbank": dense_bank(201, 24), **SMALL, **change}
    with pytest.raises(error, match=words):
        filtered_spectrogram(torch.zeros(4000), **given)
    with pytest.raises(error, match=words):
        FilteredSpectrogramTransform(**given)


def test_a_short_signal_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make()(torch.ones(1)).shape == (24, 1)
