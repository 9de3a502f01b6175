"""Centroid, bandwidth, rolloff and contrast against librosa in float64, over every route."""

from __future__ import annotations

import math
from typing import Any, Callable

import descriptor_cases as cases
import front_end_cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor

from mps_spectro import spectral_bandwidth, spectral_centroid, spectral_contrast, spectral_rolloff, use_backend
from mps_spectro.descriptors import contrast_bands

librosa = pytest.importorskip("librosa")
# librosa warns of signals shorter than n_fft
pytestmark = pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")

# what a float32 result may differ by, in parts of the value; and in dB
CLOSE = 3e-6
DECIBELS = 1e-4

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., np.ndarray]]] = {
    "centroid": (spectral_centroid, librosa.feature.spectral_centroid),
    "bandwidth": (spectral_bandwidth, librosa.feature.spectral_bandwidth),
    "rolloff": (spectral_rolloff, librosa.feature.spectral_rolloff),
    "contrast": (spectral_contrast, librosa.feature.spectral_contrast),
}


def bands_that_fit(case: dict[str, Any]) -> dict[str, Any]:
    """n_bands for spectral_contrast, where its default does not fit below the Nyquist frequency."""
    most = math.ceil(math.log2(cases.rate(case) / 400.0))
    return {} if most >= 6 else {"n_bands": most}


def theirs(name: str, x: Tensor, case: dict[str, Any], **options: Any) -> np.ndarray:
    return FUNCTIONS[name][1](**cases.librosas(x, case), **options)


def ties(got: Tensor, x: Tensor, case: dict[str, Any], roll_percent: float = 0.85) -> Tensor:
    """The rolloff, with librosa's value in frames where the sum up to the bin is within rounding of the threshold."""
    arguments = {"n_fft": 2048, "hop_length": 512, **cases.librosas(x, case)}
    arguments.pop("sr", None)
    sums = torch.from_numpy(np.abs(librosa.stft(**arguments))).cumsum(-2)
    total = sums[..., -1:, :]
    expected = torch.from_numpy(theirs("rolloff", x, case, roll_percent=roll_percent))
    spacing = cases.rate(case) / case.get("n_fft", 2048)
    lower = (torch.minimum(got.cpu().double(), expected) / spacing).round().long()
    tie = (sums.gather(-2, lower) - roll_percent * total).abs() <= 2e-6 * total
    beside = (got.cpu().double() - expected).abs() <= 1.5 * spacing
    return torch.where(tie & beside, expected, got.cpu().double())


def difference(name: str, got: Tensor, x: Tensor, case: dict[str, Any], **options: Any) -> float:
    if name == "rolloff":
        got = ties(got, x, case, **options)
    expected = theirs(name, x, case, **options)
    return cases.error(got, expected, floor=1.0 if name == "contrast" else 0.0)


# --- librosa ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases.CASES, ids=front_end_cases.name)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_librosa(name: str, case: dict[str, Any]) -> None:
    options = bands_that_fit(case) if name == "contrast" else {}
    for kind in ("mixture", "noise"):
        x = cases.signal(cases.rate(case), kind)
        got = FUNCTIONS[name][0](x, **case, **options)
        assert got.dtype == torch.float32
        limit = DECIBELS if name == "contrast" else CLOSE
        assert difference(name, got, x, case, **options) <= limit, kind
        exact = FUNCTIONS[name][0](x.double(), **_double_window(case), **options)
        assert exact.dtype == torch.float64
        assert difference(name, exact, x, case, **options) <= 1e-10, kind


def _double_window(case: dict[str, Any]) -> dict[str, Any]:
    window = case.get("window_fn")
    return {**case, "window_fn": window.double()} if isinstance(window, Tensor) else case


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("bandwidth", {"p": p}) for p in (0.5, 1, 1.5, 3, 12.0)),
        *(("rolloff", {"roll_percent": share}) for share in (0.01, 0.5, 0.999)),
        ("contrast", {"quantile": 0.2}),
        ("contrast", {"quantile": 0.999}),
        ("contrast", {"n_bands": 1, "fmin": 2000.0}),
        ("contrast", {"n_bands": 3, "fmin": 110.25}),
        ("contrast", {"n_bands": 4, "fmin": 344.53125}),  # edges that are bins
    ],
    ids=str,
)
@pytest.mark.parametrize("n_fft", [512, 2048])
def test_options(name: str, options: dict[str, Any], n_fft: int) -> None:
    x = cases.signal(22050)
    got = FUNCTIONS[name][0](x, n_fft=n_fft, **options)
    limit = DECIBELS if name == "contrast" else CLOSE
    assert difference(name, got, x, {"n_fft": n_fft}, **options) <= limit


def check_on_the_spectrum_of_torch(name: str, x: Tensor, case: dict[str, Any]) -> None:
    """Where most bins hold the rounding of a float32 transform: in float64, and with the magnitudes of torch."""
    exact = FUNCTIONS[name][0](x.double(), **case)
    assert difference(name, exact, x, case) <= 1e-7
    magnitudes = cases.magnitudes_of_torch(x)
    expected = FUNCTIONS[name][1](S=magnitudes, sr=cases.rate(case))
    got = FUNCTIONS[name][0](x, **case)
    if name == "rolloff":
        got = torch.where((got - torch.from_numpy(expected)).abs() <= 1e-3, got, ties(got, x, case).float())
    assert cases.error(got, expected, floor=1.0) <= (DECIBELS if name == "contrast" else CLOSE)


@pytest.mark.parametrize("kind", ["tone", "chirp", "dc", "clipped", "faint", "loud", "impulse", "silence"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_signals(name: str, kind: str) -> None:
    check_on_the_spectrum_of_torch(name, cases.signal(22050, kind), {})


def test_every_route(route: Route) -> None:
    for case in (cases.CASES[0], cases.CASES[5], cases.CASES[8]):
        x = torch.stack([cases.signal(cases.rate(case), kind) for kind in ("mixture", "noise")])
        for name, (ours, _) in FUNCTIONS.items():
            got = ours(x.to(route.device), **case)
            assert got.device.type == route.device
            for one, signal in zip(got, x):
                limit = DECIBELS if name == "contrast" else CLOSE
                assert difference(name, one, signal, case) <= limit, (name, case)


@pytest.mark.parametrize(
    ("file", "seconds", "start"),
    [("speech-mono-48k-1s.wav", 1.4, 0.0), ("music-stereo-44k1-195s.ogg", 2.0, 60.0)],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_recordings(name: str, file: str, seconds: float, start: float) -> None:
    x, sample_rate = recording(file, seconds, start)
    case = {"sample_rate": sample_rate}
    got = FUNCTIONS[name][0](x, **case)
    for one, channel in zip(got, x):
        assert cases.error(one, FUNCTIONS[name][0](channel, **case), floor=1.0) <= 1e-4
        check_on_the_spectrum_of_torch(name, channel, case)
        if name != "contrast":  # whose valleys are the rounding of the transform here
            assert difference(name, one, channel, case) <= 1e-5


# --- bands of the contrast --------------------------------------------------------------------------------------------


def test_bands_are_those_of_librosa() -> None:
    """Counted from what librosa takes of a spectrum in which every bin is another power of two."""
    for sample_rate, n_fft, n_bands, fmin, quantile in [
        (22050, 2048, 6, 200.0, 0.02),
        (24000, 2048, 6, 200.0, 0.02),
        (16000, 512, 5, 200.0, 0.1),
        (44100, 4096, 7, 150.0, 0.3),
        (48000, 1000, 3, 480.0, 0.02),
        (32000, 1149, 4, 500.0, 0.5),
        (8000, 256, 2, 250.0, 0.05),
        (22050, 2047, 6, 200.0, 0.02),
    ]:
        n_bins = n_fft // 2 + 1
        order = np.random.default_rng(n_fft).permutation(n_bins) + 1.0
        spectrum = order[:, None]
        arguments = {"n_bands": n_bands, "fmin": fmin, "quantile": quantile}
        freq = librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft)
        expected = librosa.feature.spectral_contrast(S=spectrum, sr=sample_rate, freq=freq, linear=True, **arguments)
        bands = contrast_bands(sample_rate, n_fft, n_bands, fmin, quantile)
        got = []
        for start, stop, extreme in bands:
            inside = np.sort(order[start:stop])
            got.append(inside[-extreme:].mean() - inside[:extreme].mean())
        assert np.allclose(got, expected[:, 0], rtol=1e-12), (sample_rate, n_fft)


@pytest.mark.parametrize("n_fft", [1, 2, 16, 31, 64, 128])
def test_bands_between_two_bins_are_one_bin(n_fft: int) -> None:
    bands = contrast_bands(22050, n_fft, 6, 200.0, 0.02)
    assert len(bands) == 7 and bands[0].start == 0 and bands[-1].stop == n_fft // 2 + 1
    for start, stop, extreme in bands:
        assert 0 <= start < stop <= n_fft // 2 + 1 and 1 <= extreme <= stop - start
    got = spectral_contrast(cases.signal(22050), n_fft=n_fft, hop_length=max(1, n_fft // 2))
    assert got.isfinite().all() and (got >= 0).all()


def test_no_signal_of_a_batch_depends_on_the_others() -> None:
    quiet, loud = cases.signal(22050), 1e9 * cases.signal(22050, "noise")
    got = spectral_contrast(torch.stack([quiet, loud]))
    assert cases.error(got[0], spectral_contrast(quiet), floor=1.0) < 1e-5
    together = librosa.feature.spectral_contrast(y=torch.stack([quiet, loud]).double().numpy())
    # librosa's own clipping there takes the largest of all signals
    assert np.abs(together[0] - got[0].numpy()).max() > 1.0


# --- shapes, dtypes, short signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_and_dtypes(name: str) -> None:
    ours = FUNCTIONS[name][0]
    rows = 7 if name == "contrast" else 1
    x = cases.signal(22050)[:5000]
    single = ours(x)
    assert single.shape == (rows, 10)
    for lead in ((1,), (3,), (2, 3), (2, 1, 3)):
        assert torch.equal(ours(x.expand(*lead, -1)), single.expand(*lead, -1, -1))
    every_other = torch.stack([x, x], -1).flatten()[::2]
    assert torch.equal(ours(every_other), single)
    for half in (torch.float16, torch.bfloat16):
        assert torch.equal(ours(x.to(half)), ours(x.to(half).float()))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_short_signals(name: str, mode: str) -> None:
    for length in (1, 2, 31, 255, 256, 257):
        x = cases.signal(22050, "noise")[:length].double()
        got = FUNCTIONS[name][0](x, n_fft=512, hop_length=128, center_pad_mode=mode)
        too_short = (mode == "reflect" and length <= 256) or (mode == "circular" and length < 256)
        case = {"n_fft": 512, "hop_length": 128, "center_pad_mode": "constant" if too_short else mode}
        assert difference(name, got, x, case) <= 1e-8, length


def test_short_signals_keep_normalized() -> None:
    x = cases.signal(22050, "noise")[:100]
    for options in ({}, {"normalized": True}, {"normalized": "window"}):
        got = spectral_contrast(1e-9 * x, center_pad_mode="reflect", **options)
        assert torch.equal(got, spectral_contrast(1e-9 * x, center_pad_mode="constant", **options))
    assert not torch.equal(got, spectral_contrast(1e-9 * x))


def test_uncentred_signals_shorter_than_a_frame_are_continued_by_zeros() -> None:
    x = cases.signal(22050)[:300]
    for ours, _ in FUNCTIONS.values():
        whole = torch.nn.functional.pad(x, (0, 2048 - 300))
        assert torch.equal(ours(x, center=False), ours(whole, center=False))
        assert ours(x[:0]).isfinite().all()


def test_normalized_and_minimal_tails() -> None:
    x = cases.signal(22050, "noise")
    for ours in (spectral_centroid, spectral_bandwidth):
        assert cases.error(ours(x, normalized=True), ours(x)) < 1e-5
        got = ours(x, center_tail_pad="minimal")
        assert got.shape == (1, -(-len(x) // 512))
        assert cases.error(got, ours(x)[:, : got.shape[1]]) < 1e-5
    faint = 1e-10 * x
    scaled = spectral_contrast(2048**-0.5 * faint.double())
    assert cases.error(spectral_contrast(faint.double(), normalized=True), scaled, floor=1.0) < 1e-9


def test_what_is_not_finite_stays_visible() -> None:
    for bad in (math.nan, math.inf):
        x = cases.signal(22050).clone()
        x[5000] = bad
        for name, (ours, _) in FUNCTIONS.items():
            got = ours(x)
            assert got[..., 9:11].isnan().any(), name
            if name != "contrast":
                assert got[..., :5].isfinite().all(), name


# --- gradients --------------------------------------------------------------------------------------------------------


SMALL: dict[str, Any] = {"n_fft": 16, "hop_length": 5, "sample_rate": 1600}


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        (spectral_centroid, {}),
        (spectral_bandwidth, {}),
        (spectral_bandwidth, {"p": 3.0}),
        (spectral_bandwidth, {"p": 1.5}),
        (spectral_contrast, {"n_bands": 2, "quantile": 0.5}),
        (spectral_contrast, {"n_bands": 1, "quantile": 0.1}),
    ],
)
def test_gradcheck(ours: Callable[..., Tensor], options: dict[str, Any]) -> None:
    x = torch.randn(1, 18, dtype=torch.float64).requires_grad_()
    window = (torch.rand(16, dtype=torch.float64) + 0.5).requires_grad_()

    def function(x: Tensor, window: Tensor) -> Tensor:
        # in thousands of hertz, or the differences drown
        return 1e-3 * ours(x, window_fn=window, **SMALL, **options)

    assert torch.autograd.gradcheck(function, (x, window))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_at_silence(route: Route, name: str) -> None:
    for options in ({}, {"p": 0.5}, {"p": 1.0}) if name == "bandwidth" else ({},):
        x = torch.zeros(2, 6000, device=route.device)
        x[1, 2000:] = cases.signal(22050, "tone")[:4000].to(route.device)
        x.requires_grad_()
        got = FUNCTIONS[name][0](x, **options)
        assert got.requires_grad == (name != "rolloff")
        if got.requires_grad:
            got.sum().backward()
            assert x.grad is not None and x.grad.isfinite().all()
            assert (x.grad[1] != 0).any()


def test_gradients_of_every_route_are_those_in_float64(route: Route) -> None:
    x = cases.signal(22050)[None, :6000]
    for name in ("centroid", "bandwidth", "contrast"):
        ours = x.to(route.device).clone().requires_grad_()
        FUNCTIONS[name][0](ours).sum().backward()
        with use_backend("torch"):
            exact = x.double().requires_grad_()
            FUNCTIONS[name][0](exact).sum().backward()
        assert front_end_cases.relative(ours.grad, exact.grad) < 1e-3, name


# --- compile, autocast ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_whole(name: str) -> None:
    ours = FUNCTIONS[name][0]
    compiled = torch.compile(lambda x: ours(x, n_fft=512), fullgraph=True, backend="aot_eager")
    for length in (4000, 4321) if name == "contrast" else (4000,):
        x, y = (cases.signal(22050)[None, :length].clone().requires_grad_() for _ in range(2))
        got, expected = compiled(x), ours(y, n_fft=512)
        assert cases.error(got, expected.detach(), floor=1.0) < 1e-5
        if expected.requires_grad:
            got.sum().backward()
            expected.sum().backward()
            assert front_end_cases.relative(x.grad, y.grad) < 1e-4


def test_autocast_does_not_reach_inside(route: Route) -> None:
    x = cases.signal(22050).to(route.device)
    for ours, _ in FUNCTIONS.values():
        expected = ours(x)
        with torch.autocast(route.device, dtype=torch.bfloat16):
            got = ours(x)
        assert got.dtype == torch.float32 and torch.equal(got, expected)


def test_made_in_inference_mode() -> None:
    x = cases.signal(22050)[None, :3000]
    for ours, _ in FUNCTIONS.values():
        with torch.inference_mode():
            ours(x, n_fft=333)
        y = x.clone().requires_grad_()
        got = ours(y, n_fft=333)
        if got.requires_grad:
            got.sum().backward()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "error", "words"),
    [
        ("centroid", {"x": [0.0] * 4000}, TypeError, "x must be a torch.Tensor"),
        ("centroid", {"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ("centroid", {"x": torch.tensor(1.0)}, ValueError, r"x must have shape \(..., T\)"),
        ("centroid", {"x": torch.zeros(0, 4000)}, ValueError, "empty batch"),
        ("centroid", {"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ("centroid", {"sample_rate": "44100"}, TypeError, "sample_rate must be a number"),
        ("rolloff", {"n_fft": 0}, ValueError, "n_fft must be positive"),
        ("rolloff", {"hop_length": 0}, ValueError, "hop_length must be positive"),
        ("rolloff", {"win_length": 3000}, ValueError, "win_length must be in 1"),
        ("centroid", {"window_fn": "sharp"}, ValueError, "window_fn must be a function or one of"),
        ("centroid", {"window_fn": torch.ones(9)}, ValueError, "window must have shape"),
        ("centroid", {"center": 1}, TypeError, "center must be True or False"),
        ("centroid", {"center_pad_mode": "edge"}, ValueError, "center_pad_mode must be one of"),
        ("centroid", {"center_tail_pad": "none"}, ValueError, "center_tail_pad must be one of"),
        ("centroid", {"center_tail_pad": "minimal", "center_pad_mode": "reflect"}, ValueError, "must go with"),
        ("centroid", {"normalized": "energy"}, ValueError, "normalized must be False, True"),
        ("bandwidth", {"p": 0.0}, ValueError, "p must be positive"),
        ("bandwidth", {"p": math.inf}, ValueError, "p must be positive"),
        ("rolloff", {"roll_percent": 0.0}, ValueError, "roll_percent must lie between 0 and 1"),
        ("rolloff", {"roll_percent": 85.0}, ValueError, "roll_percent must lie between 0 and 1"),
        ("contrast", {"n_bands": 0}, ValueError, "n_bands must be at least 1"),
        ("contrast", {"n_bands": 2.0}, TypeError, "n_bands must be an int"),
        ("contrast", {"fmin": 0.0}, ValueError, "fmin must be positive"),
        ("contrast", {"quantile": 1.0}, ValueError, "quantile must lie between 0 and 1"),
        ("contrast", {"n_bands": 7}, ValueError, "below half of sample_rate=22050"),
    ],
    ids=front_end_cases.name,
)
def test_bad_arguments(name: str, change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(4000), **change}
    with pytest.raises(error, match=words):
        FUNCTIONS[name][0](arguments.pop("x"), **arguments)
