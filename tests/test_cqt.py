"""Hybrid CQT against librosa, against the published numbers of mlx-spectro, and over every route."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import front_end_cases as cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor

from mps_spectro import HybridCQTTransform, _cqt_filters, cqt, diagnostics, hybrid_cqt, use_backend
from mps_spectro.cqt import _plans

librosa = pytest.importorskip("librosa")

CLOSE = 1e-5  # largest error over the largest value of the signal
ELEMENTWISE = 1e-3  # error over the value, where that is more than a hundredth of the largest
C1 = 32.70319566257483

CASES: list[dict[str, Any]] = [
    {},
    {"hop_length": 441},
    {"hop_length": 500},
    {"hop_length": 777},
    {"hop_length": 100, "n_bins": 90},
    {"hop_length": 64, "n_bins": 96},
    {"sr": 16000, "hop_length": 64, "n_bins": 88},
    {"sr": 16000, "hop_length": 160, "n_bins": 84, "fmin": 40.0},
    {"sr": 24000, "hop_length": 240, "bins_per_octave": 24, "n_bins": 168},
    {"sr": 32000, "hop_length": 321, "n_bins": 72},
    {"sr": 44100, "hop_length": 512, "n_bins": 288, "bins_per_octave": 36, "fmin": 23.12465141947715},
    {"sr": 44100, "hop_length": 441, "n_bins": 84, "fmin": 27.5},
    {"sr": 48000, "hop_length": 256, "n_bins": 110},
    {"sr": 22050.5, "hop_length": 384, "bins_per_octave": 13, "n_bins": 80},
    {"bins_per_octave": 24, "n_bins": 144, "hop_length": 320},
    {"bins_per_octave": 5, "n_bins": 33},
    {"norm": None},
    {"norm": 2},
    {"norm": math.inf},
    {"norm": 0.5},
    {"norm": 0},
    {"norm": -math.inf},
    {"sparsity": 0.0},
    {"sparsity": 0.05},
    {"sparsity": 0.3, "hop_length": 256},
    {"filter_scale": 0.5},
    {"filter_scale": 2.0},
    {"filter_scale": 0.25, "scale": False, "hop_length": 128},
    {"scale": False},
    {"scale": False, "n_bins": 24, "norm": 2},
    {"pad_mode": "reflect"},
    {"pad_mode": "edge", "hop_length": 300},
    {"window": "hamming"},
    {"window": "ones", "sparsity": 0.0},
    {"window": "blackman"},
    {"tuning": 0.37},
    {"tuning": -0.5, "bins_per_octave": 36, "n_bins": 200},
    {"n_bins": 12},
    {"n_bins": 1},
    {"n_bins": 36, "hop_length": 4096},
    {"fmin": 2000.0, "n_bins": 20, "hop_length": 2048},
    {"fmin": 5000.0, "n_bins": 12, "hop_length": 16},
    {"hop_length": 8192},
]


def signals(sr: float, length: int, seed: int = 0) -> Tensor:
    """(5, length): noise, a tone, a chirp over the whole band, clicks, a decaying clipped chord."""
    t = torch.arange(length, dtype=torch.float64) / sr
    noise = 0.2 * torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rise = (0.45 * sr - 50.0) / (length / sr)
    chirp = torch.sin(2 * math.pi * (50.0 * t + 0.5 * rise * t.square()))
    clicks = torch.zeros(length, dtype=torch.float64)
    clicks[length // 5 :: length // 3] = 1.0
    chord = sum(torch.sin(2 * math.pi * f * t) for f in (65.4, 196.0, 659.3, 1318.5))
    return torch.stack(
        [noise, 0.5 * torch.sin(2 * math.pi * 440.0 * t), 0.5 * chirp, clicks, (2 * chord).clamp(-1, 1) * (-t).exp()]
    ).float()


def theirs(x: Tensor, case: dict[str, Any]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # n_fft larger than the signal
        return torch.from_numpy(librosa.hybrid_cqt(x.numpy(), **case))


def check(got: Tensor, expected: Tensor, close: float = CLOSE) -> None:
    """Compares (signals, bins, frames) signal by signal."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert got.isfinite().all() and (got >= 0).all()
    for number, (ours, librosas) in enumerate(zip(got.double(), expected.double())):
        top = librosas.max()
        error = (ours - librosas).abs()
        assert error.max() <= close * top, (number, (error.max() / top).item())
        heard = librosas > 1e-2 * top
        relative = (error[heard] / librosas[heard]).max()
        assert relative <= ELEMENTWISE * close / CLOSE, (number, relative.item())


# --- librosa ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=cases.name)
def test_librosa(case: dict[str, Any]) -> None:
    sr = case.get("sr", 22050)
    x = signals(sr, int(0.61 * sr) + 3)
    check(hybrid_cqt(x, **case), theirs(x, case))


@pytest.mark.parametrize("remainder", [0, 1, 2, 3, 255, 511])
def test_every_length_gives_librosas_frames(remainder: int) -> None:
    for case in ({}, {"n_bins": 24}, {"hop_length": 96, "n_bins": 20}):
        x = signals(22050, 8 * 512 + remainder)
        check(hybrid_cqt(x, **case), theirs(x, case))


@pytest.mark.parametrize("pad_mode", ["constant", "edge", "reflect"])
def test_signals_shorter_than_the_filters(pad_mode: str) -> None:
    for length in (4, 5, 50, 333, 1000):
        x = signals(22050, length)[:1] + 0.1
        check(hybrid_cqt(x, pad_mode=pad_mode), theirs(x, {"pad_mode": pad_mode}))
    one = torch.tensor([[0.7]])
    case = {"hop_length": 511, "pad_mode": pad_mode}
    assert cases.absolute(hybrid_cqt(one, **case), theirs(one, case)) <= 1e-6


def test_reflection_where_the_last_frame_begins_at_its_padding() -> None:
    # there librosa reflects a tail that is one sample too short, and not the signal
    x = signals(22050, 20 * 512)
    got, expected = hybrid_cqt(x, pad_mode="reflect"), theirs(x, {"pad_mode": "reflect"})
    check(got[..., :-1], expected[..., :-1])
    check(got, expected, close=1e-3)


def test_float64_is_closer_to_librosa_than_soxr_is_to_float64() -> None:
    x = signals(22050, 9000).double()
    got, expected = hybrid_cqt(x), theirs(x, {})
    assert got.dtype == expected.dtype == torch.float64
    check(got, expected)


@pytest.mark.parametrize(
    "case",
    [{}, {"hop_length": 441, "fmin": 27.5}, {"bins_per_octave": 36, "n_bins": 252, "hop_length": 1024}],
    ids=cases.name,
)
@pytest.mark.parametrize("name", ["music-stereo-44k1-195s.ogg", "speech-mono-48k-1s.wav"])
def test_recordings(name: str, case: dict[str, Any]) -> None:
    x, sr = recording(name, seconds=1.0, start=30.0 if name.startswith("music") else 0.0)
    check(hybrid_cqt(x, sr=sr, **case), theirs(x, {"sr": sr, **case}))


@pytest.mark.slow
@pytest.mark.parametrize("sr", [16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("hop_length", [64, 96, 128, 147, 240, 441, 512, 640, 777])
def test_librosa_over_rates_and_hops(sr: int, hop_length: int) -> None:
    x = signals(sr, 2 * sr + 17)[[0, 2, 3]]
    for bins_per_octave in (12, 24, 36):
        octaves = math.floor(math.log2(0.4 * sr / C1))
        for n_bins in (bins_per_octave, 3 * bins_per_octave + 5, octaves * bins_per_octave):
            case = {"sr": sr, "hop_length": hop_length, "n_bins": n_bins, "bins_per_octave": bins_per_octave}
            got, expected = hybrid_cqt(x, **case).double(), theirs(x, case).double()
            error = (got - expected).abs().amax(2) / expected.amax((1, 2))[:, None]
            # one filter in a thousand may keep a bin more or less: librosa's rounding decides
            other = error.amax(0) > 2 * CLOSE
            assert other.sum() <= 1 + n_bins // 200 and error.max() <= 1e-2, (case, error.amax(0)[other])


@pytest.mark.parametrize("scaling", ["librosa", "mlx"])
@pytest.mark.parametrize("hop_length", [100, 441, 500, 512, 640, 777])
def test_octaves_stay_together_for_any_hop(hop_length: int, scaling: str) -> None:
    x = torch.zeros(9 * 22050)
    frame = round(8.7 * 22050 / hop_length)
    x[frame * hop_length] = 1.0
    got = hybrid_cqt(x, hop_length=hop_length, scaling=scaling)
    # the middle of a response, whose top is flat in the low octaves
    frames = torch.arange(got.shape[1], dtype=torch.float32)
    centre = (got.square() * frames).sum(1) / got.square().sum(1)
    assert (centre - frame).abs().max() <= 0.5, centre


# --- filters ----------------------------------------------------------------------------------------------------------


def test_filters_are_librosas() -> None:
    for sr, per_octave, scale, norm, window in (
        (22050, 12, 1.0, 1, "hann"),
        (16000, 36, 0.7, 2, "hamming"),
        (48000.0, 7, 2.0, math.inf, "blackman"),
        (22050, 12, 1.0, None, "ones"),
    ):
        freqs = _cqt_filters.frequencies(20, 110.0, per_octave)
        lengths = _cqt_filters.lengths(freqs, sr, per_octave, scale)
        arguments = {"freqs": np.array(freqs), "sr": sr, "filter_scale": scale, "window": window}
        expected_lengths, cutoff = librosa.filters.wavelet_lengths(**arguments)
        assert np.abs(np.array(lengths) / expected_lengths - 1).max() <= 1e-12
        quality = _cqt_filters.quality(per_octave, scale)
        assert freqs[-1] * (1 + 0.5 * _cqt_filters.bandwidth(window) / quality) == pytest.approx(cutoff, rel=1e-12)

        basis, _ = librosa.filters.wavelet(**arguments, norm=norm, dtype=np.complex128)
        size = basis.shape[1]
        expected = np.fft.fft(basis * expected_lengths[:, None] / size, axis=1)[:, : size // 2 + 1]
        got = _cqt_filters.spectra(freqs, lengths, sr, size, _cqt_filters.atom(window), norm).numpy()
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.05, 0.5, 0.99])
def test_rows_are_made_sparse_as_librosa_and_numpy_do(sparsity: float) -> None:
    x = torch.randn(7, 129, dtype=torch.complex128) * torch.linspace(1, 0, 129, dtype=torch.float64) ** 4
    expected = librosa.util.sparsify_rows(x.numpy(), quantile=sparsity).toarray()
    assert np.array_equal(_cqt_filters.sparse_by_sum(x, sparsity).numpy(), expected)
    magnitudes = np.abs(x.numpy())
    kept = magnitudes > np.quantile(magnitudes, sparsity, axis=1, keepdims=True)
    assert np.array_equal(_cqt_filters.sparse_by_count(x, sparsity).numpy(), np.where(kept, x.numpy(), 0))


# --- mlx-spectro ------------------------------------------------------------------------------------------------------

_LVCR = {"hop_length": 512, "fmin": 23.12465141947715, "n_bins": 288, "bins_per_octave": 36}


@pytest.mark.parametrize(
    ("length", "seed", "arguments", "shape", "total", "mean", "std", "top", "corners"),
    [
        (8192, 11, {"hop_length": 256, "n_bins": 48}, (48, 33), 320.727760, 0.20247965, 0.10283358, 0.65569401,
         {0: 0.11985092, 23: 0.04476374, 45: 0.27394617}),
        (12288, 17, _LVCR, (288, 25), 1203.590898, 0.16716540, 0.12227840, 0.73539627,
         {0: 0.04511188, 143: 0.20272592, 285: 0.02375971}),
    ],
    ids=["small", "lvcr"],
)  # fmt: skip
def test_published_numbers_of_mlx_spectro(
    length: int,
    seed: int,
    arguments: dict[str, Any],
    shape: tuple[int, int],
    total: float,
    mean: float,
    std: float,
    top: float,
    corners: dict[int, float],
) -> None:
    x = torch.from_numpy((0.2 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32))
    got = HybridCQTTransform(sr=22050, scaling="mlx", **arguments)(x)
    assert got.shape == shape
    values = got.double()
    assert values.sum().item() == pytest.approx(total, rel=1e-6)
    assert values.mean().item() == pytest.approx(mean, abs=1e-7)
    assert values.std(correction=0).item() == pytest.approx(std, abs=1e-7)
    assert values.max().item() == pytest.approx(top, abs=1e-6)
    for row, value in corners.items():
        assert values[row, 0].item() == pytest.approx(value, abs=1e-7)


def test_the_mlx_scaling_of_short_and_silent_signals() -> None:
    for length in (1, 20, 40, 700):
        got = hybrid_cqt(torch.ones(length), hop_length=256, scaling="mlx")
        assert got.shape == (84, 1 + length // 256) and got.isfinite().all() and (got >= 0).all()
    assert (hybrid_cqt(torch.zeros(16000), hop_length=256, scaling="mlx") == 0).all()


# --- shapes, dtypes, edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", cases.SHAPES)
def test_leading_dimensions(lead: tuple[int, ...]) -> None:
    x = cases.noise(*lead, 3000)
    got = hybrid_cqt(x)
    assert got.shape == (*lead, 84, 6)
    rows = torch.stack([hybrid_cqt(row) for row in x.reshape(-1, 3000)]).reshape(got.shape)
    assert cases.relative(got, rows) <= 1e-6
    assert got.stride()[-2:] == (1, 84)


def test_dtypes() -> None:
    x = cases.noise(2, 4000)
    for dtype in (torch.float16, torch.bfloat16):
        got = hybrid_cqt(x.to(dtype))
        assert got.dtype == torch.float32 and torch.equal(got, hybrid_cqt(x.to(dtype).float()))
    plain = hybrid_cqt(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hybrid_cqt(x), plain) and torch.equal(HybridCQTTransform()(x), plain)
    assert cases.relative(hybrid_cqt(x), hybrid_cqt(x.double())) <= 1e-6
    flipped = x.flip(-1).t().contiguous().t()
    assert cases.relative(hybrid_cqt(flipped), hybrid_cqt(flipped.contiguous())) <= 1e-6


@pytest.mark.parametrize("scaling", ["librosa", "mlx"])
def test_nothing_becomes_nan(scaling: str) -> None:
    silence = torch.zeros(2, 4000, requires_grad=True)
    got = hybrid_cqt(silence, scaling=scaling)
    assert (got == 0).all()
    got.sum().backward()
    assert silence.grad is not None and silence.grad.isfinite().all()
    for x in (torch.full((4000,), 0.5), signals(22050, 4000)[2].mul(50).clamp(-1, 1), 1e-20 * cases.noise(4000)):
        assert hybrid_cqt(x, scaling=scaling).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_bins": 0}, ValueError, "n_bins must be positive"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"hop_length": 2.5}, TypeError, "hop_length must be an int"),
        ({"bins_per_octave": -1}, ValueError, "bins_per_octave must be positive"),
        ({"sr": 0}, ValueError, "sr must be positive"),
        ({"sr": "22050"}, TypeError, "sr must be a number"),
        ({"fmin": -1.0}, ValueError, "fmin must be positive"),
        ({"filter_scale": 0.0}, ValueError, "filter_scale must be positive"),
        ({"filter_scale": 1e-4}, ValueError, "filter_scale must give filters of at least one sample"),
        ({"sparsity": 1.0}, ValueError, "sparsity must be at least 0 and less than 1"),
        ({"sparsity": -0.1}, ValueError, "sparsity must be at least 0 and less than 1"),
        ({"norm": -1}, ValueError, "norm must be None"),
        ({"norm": math.nan}, ValueError, "norm must be None"),
        ({"tuning": None}, TypeError, "tuning must be a number"),
        ({"tuning": math.inf}, ValueError, "tuning must be finite"),
        ({"scale": 1}, TypeError, "scale must be"),
        ({"window": "none"}, ValueError, "window must be a function or one of"),
        ({"window": [1.0, 2.0]}, TypeError, "window must be a function or a name"),
        ({"pad_mode": "wrap"}, ValueError, "pad_mode must be one of constant, reflect, edge"),
        ({"scaling": "torch"}, ValueError, "scaling must be one of librosa, mlx"),
        ({"scaling": "mlx", "window": "hamming"}, ValueError, "scaling='mlx' must go with window='hann'"),
        ({"scaling": "mlx", "scale": False}, ValueError, "scaling='mlx' must go with"),
        ({"n_bins": 102}, ValueError, "n_bins must keep every bin below half the sample rate, 11025 Hz"),
        (
            {"bins_per_octave": 3, "n_bins": 26, "hop_length": 4},
            ValueError,
            "n_bins must keep every band below half the sample rate",
        ),
    ],
    ids=cases.name,
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HybridCQTTransform(**arguments)
    with pytest.raises(error, match=message):
        hybrid_cqt(torch.zeros(4000), **arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(4000, dtype=torch.int64), TypeError, "x must be real and floating point"),
        (torch.zeros(4000, dtype=torch.complex64), TypeError, "x must be real and floating point"),
        ([0.0] * 4000, TypeError, "x must be"),
        (torch.tensor(1.0), ValueError, "x must have shape"),
        (torch.zeros(0, 4000), ValueError, "empty batch"),
        (torch.zeros(0), ValueError, "x must have at least 4 samples"),
        (torch.zeros(3), ValueError, "x must have at least 4 samples"),
    ],
    ids=cases.name,
)
def test_wrong_signals(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hybrid_cqt(x)


def test_full_bands_are_refused_where_librosa_refuses_them() -> None:
    x = signals(22050, 2000)
    refused = []
    for n_bins in range(22, 27):  # with hops this short every filter is a full one
        case = {"bins_per_octave": 3, "hop_length": 4, "n_bins": n_bins}
        try:
            expected = theirs(x, case)
        except librosa.util.exceptions.ParameterError:
            refused.append(n_bins)
            with pytest.raises(ValueError, match="n_bins must keep every band"):
                hybrid_cqt(x, **case)
        else:
            check(hybrid_cqt(x, **case), expected)
    assert refused and len(refused) < 5


# --- gradients, compilers ---------------------------------------------------------------------------------------------

# two octaves of long filters; short filters and an octave of long ones
_TINY = [
    {"sr": 400, "hop_length": 16, "fmin": 40.0, "n_bins": 7, "bins_per_octave": 4},
    {"sr": 400, "hop_length": 32, "fmin": 20.0, "n_bins": 11, "bins_per_octave": 4},
]


@pytest.mark.parametrize("options", [{}, {"pad_mode": "reflect"}, {"scaling": "mlx"}], ids=cases.name)
def test_gradcheck(options: dict[str, Any]) -> None:
    x = torch.randn(1, 21, dtype=torch.float64, requires_grad=True)
    for case in _TINY[len(options) :]:
        assert torch.autograd.gradcheck(lambda x: hybrid_cqt(x, **case, **options), x)  # noqa: B023


def test_second_derivatives() -> None:
    x = torch.randn(1, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: hybrid_cqt(x, **_TINY[0]), x)


@pytest.mark.filterwarnings("ignore")
def test_functional_transforms() -> None:
    x = torch.randn(3, 90)
    case = _TINY[1]
    rows = hybrid_cqt(x, **case)
    assert cases.relative(torch.func.vmap(lambda row: hybrid_cqt(row, **case))(x), rows) <= 1e-6
    gradient = torch.func.grad(lambda x: hybrid_cqt(x, **case).sum())(x)
    differentiated = x.clone().requires_grad_()
    hybrid_cqt(differentiated, **case).sum().backward()
    assert differentiated.grad is not None and cases.relative(gradient, differentiated.grad) <= 1e-5
    direction = torch.randn(3, 90)
    _, tangent = torch.func.jvp(lambda x: hybrid_cqt(x, **case).sum(), (x,), (direction,))
    assert tangent.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"scaling": "mlx"}], ids=cases.name)
def test_compiled(options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    module = HybridCQTTransform(**_TINY[1], **options)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for length in (400, 601):
        x, again = (cases.noise(2, length).requires_grad_() for _ in range(2))
        expected, got = module(x), compiled(again)
        assert cases.relative(got, expected) <= 1e-6
        expected.square().sum().backward()
        got.square().sum().backward()
        assert x.grad is not None and again.grad is not None and cases.relative(again.grad, x.grad) <= 1e-5
    assert module.get_compiled() is module.get_compiled()
    assert cases.relative(module.get_compiled()(x.detach()), expected) <= 1e-6


def test_the_function_is_compiled() -> None:
    torch._dynamo.reset()
    x = cases.noise(2, 4000)
    compiled = torch.compile(lambda x: hybrid_cqt(x, n_bins=60), backend="aot_eager", fullgraph=True)
    assert cases.relative(compiled(x), hybrid_cqt(x, n_bins=60)) <= 1e-6


def test_exported_graphs_need_only_torch() -> None:
    module = HybridCQTTransform(n_bins=60)
    x = cases.noise(2, 4000)
    program = torch.export.export(module, (x,))
    assert "mps_spectro" not in str(program.graph)
    assert cases.relative(program.module()(x), module(x)) <= 1e-6


# --- routes, modules, caches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [{}, {"hop_length": 441, "n_bins": 60, "pad_mode": "reflect"}], ids=cases.name)
def test_routes(route: Route, case: dict[str, Any]) -> None:
    x = signals(22050, 6003)
    got = HybridCQTTransform(**case).to(route.device)(x.to(route.device))
    assert got.device.type == route.device
    check(got.cpu(), theirs(x, case))
    assert cases.relative(hybrid_cqt(x.to(route.device), **case), got) <= 1e-6


def test_gradients_on_routes(route: Route) -> None:
    x = cases.noise(2, 3001)
    weights = cases.noise(2, 60, 12)

    def gradient(device: str, dtype: torch.dtype) -> Tensor:
        leaf = x.to(device, dtype).detach().requires_grad_()
        (hybrid_cqt(leaf, hop_length=256, n_bins=60) * weights.to(device, dtype)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    got = gradient(route.device, torch.float32)
    with use_backend("torch"):
        assert cases.relative(got, gradient("cpu", torch.float64)) <= 1e-4


def test_long_spectra_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = signals(22050, 9001)
    for case in ({"hop_length": 147, "pad_mode": "edge"}, {"hop_length": 128}, {"hop_length": 777, "scaling": "mlx"}):
        monkeypatch.undo()
        whole = hybrid_cqt(x, **case)
        for most in (1, 40000):
            monkeypatch.setattr(cqt, "_CHUNK", most)
            assert cases.relative(hybrid_cqt(x, **case), whole) <= 1e-6
    short = x[:, :300]
    monkeypatch.undo()
    whole = hybrid_cqt(short, hop_length=147, pad_mode="reflect")
    monkeypatch.setattr(cqt, "_CHUNK", 1)
    assert cases.relative(hybrid_cqt(short, hop_length=147, pad_mode="reflect"), whole) <= 1e-6


def test_module_state() -> None:
    module = HybridCQTTransform(hop_length=256, norm=2)
    x = cases.noise(2, 4000)
    expected = module(x)
    assert len(module.state_dict()) == 0 and not list(module.parameters())
    module.load_state_dict({})
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.deepcopy(module).half()):
        assert torch.equal(twin(x), expected)
    assert torch.equal(copy.deepcopy(module).double()(x), expected)
    assert module(x.double()).dtype == torch.float64
    assert torch.equal(module(x.double()), copy.deepcopy(module).double()(x.double()))
    assert repr(module) == "HybridCQTTransform(hop_length=256, norm=2)"
    assert (module.sr, module.hop_length, module.n_bins, module.norm) == (22050, 256, 84, 2)


def test_the_function_keeps_its_plans() -> None:
    x = cases.noise(4000)
    first = hybrid_cqt(x, hop_length=192)
    size = len(_plans)
    assert torch.equal(hybrid_cqt(x, hop_length=192, fmin=C1, pad_mode="constant"), first)
    assert len(_plans) == size
    assert {"CQT plans", "CQT tables"} <= set(diagnostics()["caches"])
    assert torch.equal(HybridCQTTransform(hop_length=192)(x), first)


def test_plans_made_in_inference_mode_serve_training() -> None:
    x = cases.noise(4000)
    with torch.inference_mode():
        module = HybridCQTTransform(hop_length=160)
        hybrid_cqt(x, hop_length=160)
    for function in (module, lambda x: hybrid_cqt(x, hop_length=160)):
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        assert leaf.grad is not None and leaf.grad.abs().max() > 0
