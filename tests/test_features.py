"""The bundle of descriptors: librosa's values, one transform, and what is expected of a module."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
from collections import Counter
from typing import Any, Callable

import descriptor_cases as cases
import front_end_cases
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor

import mps_spectro
from mps_spectro import SpectralFeatureTransform, spectral_features
from mps_spectro.features import FEATURES
from mps_spectro.mfcc import mfcc

librosa = pytest.importorskip("librosa")

SINGLE: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(mps_spectro, name) for name in FEATURES if name != "mfcc"},
    "mfcc": mfcc,
}
# largest error in parts of the largest value; of the others in parts of each value, in dB of no smaller one than 1
OF_LARGEST = {"chroma_stft": 3e-6, "mfcc": 1e-5}
# arguments of the bundle -> arguments of the single functions and of librosa
OPTIONS = {
    "chroma_stft": {"n_chroma": "n_chroma", "chroma_norm": "norm", "tuning": "tuning"},
    "spectral_centroid": {},
    "spectral_bandwidth": {"bandwidth_p": "p"},
    "spectral_rolloff": {"roll_percent": "roll_percent"},
    "spectral_contrast": {"n_bands": "n_bands", "contrast_fmin": "fmin", "contrast_quantile": "quantile"},
    "mfcc": {name: name for name in ("n_mfcc", "n_mels", "f_min", "f_max", "lifter", "dct_norm", "mel_scale", "top_db")}
    | {"mel_norm": "norm"},
}
OF_ALL = ("sample_rate", "n_fft", "hop_length", "win_length", "window_fn", "center", "center_pad_mode")
SMALL = {"n_fft": 512, "hop_length": 128, "n_mels": 40}

CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"n_chroma": 24, "chroma_norm": 2, "tuning": 0.25, "bandwidth_p": 3.0, "roll_percent": 0.5},
    {"n_bands": 4, "contrast_fmin": 150.0, "contrast_quantile": 0.2, "n_mfcc": 13, "n_mels": 40, "lifter": 22},
    {"mel_scale": "htk", "mel_norm": None, "f_min": 50.0, "f_max": 8000.0, "dct_norm": None, "top_db": 60.0},
    {"chroma_norm": None, "top_db": 200.0},
]


def divided(options: dict[str, Any], name: str) -> dict[str, Any]:
    """Of the bundle's arguments those of one feature, as it calls them."""
    mine = {key: value for key, value in options.items() if key in OF_ALL}
    return mine | {theirs: options[ours] for ours, theirs in OPTIONS[name].items() if ours in options}


def theirs(name: str, x: Tensor, options: dict[str, Any]) -> Tensor:
    """What librosa gives in float64."""
    mine = divided(options, name)
    common = cases.librosas(x, {key: value for key, value in mine.items() if key in OF_ALL})
    extra = {key: value for key, value in mine.items() if key not in OF_ALL}
    if name == "chroma_stft":
        extra.setdefault("tuning", 0.0)
    if name != "mfcc":
        return torch.from_numpy(getattr(librosa.feature, name)(**common, **extra))
    # a power spectrogram of its own, because librosa.feature.mfcc clips at 80 dB
    mel = {"n_mels": 128, "fmin": extra.pop("f_min", 0.0), "fmax": extra.pop("f_max", None)}
    mel |= {"htk": extra.pop("mel_scale", "slaney") == "htk", "norm": extra.pop("norm", "slaney")}
    mel["n_mels"] = extra.pop("n_mels", 128)
    bands = librosa.feature.melspectrogram(**common, **mel, dtype="float64")
    decibels = librosa.power_to_db(bands, top_db=extra.pop("top_db", 80.0))
    extra["norm"] = extra.pop("dct_norm", "ortho")
    return torch.from_numpy(librosa.feature.mfcc(S=decibels, **extra))


def check_against_librosa(got: dict[str, Tensor], x: Tensor, options: dict[str, Any], scale: float = 1.0) -> None:
    for name, values in got.items():
        expected = theirs(name, x, options)
        if name in OF_LARGEST:
            assert front_end_cases.relative(values, expected) <= OF_LARGEST[name] * scale, name
        elif name == "spectral_contrast":
            assert cases.error(values, expected, floor=1.0) <= 1e-4 * scale, name
        else:
            assert cases.error(values, expected) <= 3e-6 * scale, name


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in cases.CASES if cases.rate(case) > 12800], ids=front_end_cases.name)
def test_librosa(case: dict[str, Any]) -> None:
    x = cases.signal(cases.rate(case))
    # one more octave than fits below the Nyquist frequency of lower rates
    options = {**case, "n_bands": 5}
    got = spectral_features(x, **options)
    assert tuple(got) == FEATURES
    check_against_librosa(got, x, options)


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=front_end_cases.name)
def test_options_reach_their_features(options: dict[str, Any]) -> None:
    x = cases.signal(22050)
    for sizes in ({}, {"n_fft": 1024, "hop_length": 256, "win_length": 800}):
        got = SpectralFeatureTransform(**sizes, **options)(x)
        check_against_librosa(got, x, sizes | options)
        exact = spectral_features(x.double(), **sizes, **options)
        assert all(values.dtype == torch.float64 for values in exact.values())
        for name, values in exact.items():
            assert cases.error(got[name], values, floor=1.0) < 1e-3


def test_every_route(route: Route) -> None:
    x = torch.stack([cases.signal(22050, kind) for kind in ("mixture", "noise")])
    module = SpectralFeatureTransform().to(route.device)
    for got in (module(x.to(route.device)), spectral_features(x.to(route.device))):
        assert all(values.device.type == route.device for values in got.values())
        for number, one in enumerate(x):
            check_against_librosa({name: values[number] for name, values in got.items()}, one, {})


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=front_end_cases.name)
def test_the_same_as_one_by_one(route: Route, options: dict[str, Any]) -> None:
    x = torch.stack([cases.signal(22050, kind) for kind in ("mixture", "noise")]).to(route.device)
    together = spectral_features(x, **options)
    for name, values in together.items():
        single = SINGLE[name](x, **divided(options, name))
        limit = 1e-4 if name == "mfcc" else 1e-6
        assert front_end_cases.relative(values, single) <= limit, name
        alone = spectral_features(x, include=[name], **options)
        assert list(alone) == [name] and front_end_cases.relative(alone[name], single) <= limit, name


@pytest.mark.parametrize(
    ("file", "seconds", "start"), [("speech-mono-48k-1s.wav", 1.4, 0.0), ("music-stereo-44k1-195s.ogg", 2.0, 60.0)]
)
def test_recordings(file: str, seconds: float, start: float) -> None:
    x, sample_rate = recording(file, seconds, start)
    got = spectral_features(x, sample_rate=sample_rate)
    for number, channel in enumerate(x):
        # the valleys of contrast are the rounding of the transform here
        one = {name: values[number] for name, values in got.items() if name != "spectral_contrast"}
        check_against_librosa(one, channel, {"sample_rate": sample_rate}, scale=5.0)
        exact = spectral_features(channel.double(), sample_rate=sample_rate)
        check_against_librosa(exact, channel, {"sample_rate": sample_rate}, scale=0.1)


def test_one_transform_for_all(route: Route) -> None:
    if not route.kernels:
        pytest.skip("counts launches of kernels")
    x = cases.signal(22050)[None].to(route.device)
    module = SpectralFeatureTransform().to(route.device)
    module(x)
    before = Counter(mps_spectro.diagnostics()["kernel_calls"])
    module(x)
    assert Counter(mps_spectro.diagnostics()["kernel_calls"]) - before == {"bands": 1, "moments": 1, "extremes": 1}


# --- what is included -------------------------------------------------------------------------------------------------


def test_order_and_duplicates() -> None:
    x = cases.signal(22050)
    names = ("mfcc", "spectral_rolloff", "chroma_stft")
    got = spectral_features(x, include=names)
    assert tuple(got) == names
    assert tuple(SpectralFeatureTransform(include=[*names, "mfcc", *names])(x)) == names
    everything = spectral_features(x, include=reversed(FEATURES))  # type: ignore[arg-type]
    assert tuple(everything) == FEATURES[::-1]
    for name, values in got.items():
        assert front_end_cases.relative(values, everything[name]) < 1e-5


def test_arguments_of_others_do_not_count() -> None:
    x = cases.signal(8000)
    with pytest.raises(ValueError, match="below half of sample_rate"):
        spectral_features(x, sample_rate=8000)
    got = spectral_features(x, sample_rate=8000, include=["spectral_centroid"], n_mfcc=-3, n_chroma=0)
    assert list(got) == ["spectral_centroid"]


def test_defaults_are_those_of_the_single_functions() -> None:
    ours = inspect.signature(spectral_features).parameters
    assert list(inspect.signature(SpectralFeatureTransform).parameters.values()) == [
        parameter for name, parameter in ours.items() if name != "x"
    ]
    for name, function in SINGLE.items():
        single = inspect.signature(function).parameters
        for mine, its in ({key: key for key in OF_ALL} | OPTIONS[name]).items():
            assert ours[mine].default == single[its].default, (name, mine)


# --- shapes, dtypes, short signals ------------------------------------------------------------------------------------


def test_shapes_and_dtypes() -> None:
    x = cases.signal(22050)[:5000]
    module = SpectralFeatureTransform()
    single = module(x)
    assert [values.shape for values in single.values()] == [(12, 10), (1, 10), (1, 10), (1, 10), (7, 10), (20, 10)]
    for lead in ((1,), (2, 3), (2, 1, 2)):
        for name, values in module(x.expand(*lead, -1)).items():
            assert front_end_cases.relative(values, single[name].expand(*lead, -1, -1)) < 1e-5
    for half in (torch.float16, torch.bfloat16):
        for got in (module(x.to(half)), spectral_features(x.to(half))):
            wide = module(x.to(half).float())
            assert all(torch.equal(values, wide[name]) for name, values in got.items())
    assert all(values.dtype == torch.float64 for values in module(x.double()).values())


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_short_signals(mode: str) -> None:
    for length in (1, 31, 256, 300):
        x = cases.signal(22050, "noise")[:length]
        options = {"n_fft": 512, "hop_length": 128, "center_pad_mode": mode}
        got = spectral_features(x, **options, normalized=True)
        if length <= 256:
            zeros = spectral_features(x, **options | {"center_pad_mode": "constant"}, normalized=True)
            assert all(torch.equal(values, zeros[name]) for name, values in got.items())
        assert all(values.isfinite().all() and values.shape[-1] == 1 + length // 128 for values in got.values())


@pytest.mark.parametrize("kind", ["silence", "dc", "clipped", "impulse", "faint", "loud"])
def test_edge_cases_are_finite(kind: str) -> None:
    x = cases.signal(22050, kind).clone().requires_grad_()
    got = spectral_features(x)
    assert all(values.isfinite().all() for values in got.values())
    sum(values.sum() for values in got.values()).backward()
    assert x.grad is not None and x.grad.isfinite().all()
    if kind == "silence":
        assert all((values == 0).all() for name, values in got.items() if name != "mfcc")


# --- module -----------------------------------------------------------------------------------------------------------


def test_equal_instances_share_their_tables() -> None:
    one, other = SpectralFeatureTransform(), SpectralFeatureTransform()
    names = [name for name, _ in one.named_buffers()]
    assert names == ["window", "ramp", "bank", "dct"]
    for name in names:
        assert getattr(one, name) is getattr(other, name)
    different = SpectralFeatureTransform(n_mels=64, n_fft=1024)
    for name in names:
        assert getattr(one, name) is not getattr(different, name)
    without = SpectralFeatureTransform(include=["spectral_centroid"])
    assert without.bank is None and without.dct is None and without.ramp is one.ramp


def test_copies_pickles_and_state_dicts() -> None:
    x = cases.signal(22050)
    module = SpectralFeatureTransform(**SMALL)
    expected = module(x)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    module.get_compiled()
    other = SpectralFeatureTransform(**SMALL)
    other.load_state_dict(module.state_dict())
    assert module.state_dict() == {}
    for copied in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stored, weights_only=False),
        other,
    ):
        got = copied(x)
        assert list(got) == list(expected) and all(torch.equal(got[name], expected[name]) for name in expected)


def test_moves_and_casts(route: Route) -> None:
    module = SpectralFeatureTransform(**SMALL)
    x = cases.signal(22050)[None].to(route.device)
    stays = module(x)
    assert module.window.device.type == "cpu"
    module.to(route.device)
    assert {buffer.device.type for buffer in module.buffers()} == {route.device}
    moved = module(x)
    assert all(torch.equal(moved[name], stays[name]) for name in stays)
    halved = module.half()(x.half())
    assert {buffer.dtype for buffer in module.buffers()} == {torch.float32}
    assert all(values.dtype == torch.float32 for values in halved.values())


def test_windows() -> None:
    x = cases.signal(22050)
    expected = spectral_features(x, **SMALL, window_fn="hamming")
    window = torch.hamming_window(512)
    for window_fn in (window, torch.hamming_window, lambda length: torch.hamming_window(length)):
        module = SpectralFeatureTransform(**SMALL, window_fn=window_fn)
        assert module.window is not window
        for got in (module(x), spectral_features(x, **SMALL, window_fn=window_fn)):
            assert all(torch.equal(got[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="window_fn must not require grad"):
        SpectralFeatureTransform(window_fn=torch.ones(2048).requires_grad_())


def test_repr() -> None:
    assert repr(SpectralFeatureTransform()) == "SpectralFeatureTransform()"
    module = SpectralFeatureTransform(include=("mfcc",), n_mels=40, hop_length=256)
    assert repr(module) == "SpectralFeatureTransform(include=('mfcc',), hop_length=256, n_mels=40)"
    assert (module.include, module.n_mels, module.win_length) == (("mfcc",), 40, 2048)


def test_extract_is_the_call() -> None:
    x = cases.signal(22050)
    module = SpectralFeatureTransform(**SMALL)
    got, expected = module.extract(x), module(x)
    assert list(got) == list(expected) and all(torch.equal(got[name], expected[name]) for name in expected)


def test_made_in_inference_mode() -> None:
    with torch.inference_mode():
        module = SpectralFeatureTransform(n_fft=700, n_chroma=19, n_mels=41)
        spectral_features(cases.signal(22050), n_fft=701, n_chroma=19, n_mels=41)
    x = cases.signal(22050).clone().requires_grad_()
    for got in (module(x), spectral_features(x, n_fft=701, n_chroma=19, n_mels=41)):
        sum(values.sum() for values in got.values()).backward()
        assert x.grad is not None and x.grad.isfinite().all()


# --- gradients, compile, autocast -------------------------------------------------------------------------------------


def test_gradcheck() -> None:
    x = torch.randn(1, 13, dtype=torch.float64).requires_grad_()
    window = (torch.rand(16, dtype=torch.float64) + 0.5).requires_grad_()
    small: dict[str, Any] = {"n_fft": 16, "hop_length": 5, "sample_rate": 1600, "n_chroma": 5}
    small |= {"n_bands": 1, "contrast_quantile": 0.5, "n_mfcc": 3, "n_mels": 4}

    def function(x: Tensor, window: Tensor) -> Tensor:
        found = spectral_features(x, window_fn=window, **small)
        assert not found["spectral_rolloff"].requires_grad
        return torch.cat([values * (1e-3 if "centroid" in name or "band" in name else 1.0) for name, values in
                          found.items() if values.requires_grad], 1)  # fmt: skip

    assert torch.autograd.gradcheck(function, (x, window))


def test_gradients_are_those_of_the_single_functions(route: Route) -> None:
    x = cases.signal(22050)[None, :6000].to(route.device)
    for name, function in SINGLE.items():
        if name == "spectral_rolloff":
            continue
        ours, single = (x.clone().requires_grad_() for _ in range(2))
        spectral_features(ours)[name].sum().backward()
        function(single).sum().backward()
        assert front_end_cases.relative(ours.grad, single.grad) < 1e-3, name


def test_compiles_whole() -> None:
    module = SpectralFeatureTransform(**SMALL)
    compiled = torch.compile(SpectralFeatureTransform(**SMALL), fullgraph=True, backend="aot_eager")
    for length in (3000, 3210):
        x, y = (cases.signal(22050)[None, :length].clone().requires_grad_() for _ in range(2))
        got, expected = compiled(x), module(y)
        assert list(got) == list(expected)
        for name, values in got.items():
            assert cases.error(values, expected[name].detach(), floor=1.0) < 1e-4, name
        sum(values.sum() for values in got.values()).backward()
        sum(values.sum() for values in expected.values()).backward()
        assert front_end_cases.relative(x.grad, y.grad) < 1e-3


def test_the_function_compiles_whole() -> None:
    compiled = torch.compile(lambda x: spectral_features(x, **SMALL), fullgraph=True, backend="aot_eager")
    x = cases.signal(22050)[None]
    got, expected = compiled(x), spectral_features(x, **SMALL)
    assert all(cases.error(got[name], expected[name], floor=1.0) < 1e-4 for name in expected)


def test_get_compiled() -> None:
    module = SpectralFeatureTransform(**SMALL)
    x = cases.signal(22050)[None]
    compiled = module.get_compiled()
    assert compiled is module.get_compiled()
    got, expected = compiled(x), module(x)
    assert isinstance(got, dict) and list(got) == list(expected)
    assert all(cases.error(got[name], expected[name], floor=1.0) < 1e-4 for name in expected)


def test_vmap_and_per_example_gradients() -> None:
    module = SpectralFeatureTransform(**SMALL)
    x = torch.stack([cases.signal(22050, kind) for kind in ("mixture", "noise")])[:, :4000]
    expected = module(x)
    for function in (module, lambda x: spectral_features(x, **SMALL)):
        got = torch.vmap(function)(x)
        assert all(front_end_cases.relative(got[name], expected[name]) < 1e-5 for name in expected)

    def total(x: Tensor) -> Tensor:
        return sum((values.sum() for values in module(x).values()), torch.zeros(()))

    leaf = x.clone().requires_grad_()
    total(leaf).backward()
    assert front_end_cases.relative(torch.vmap(torch.func.grad(total))(x), leaf.grad) < 1e-4


def test_exports_without_the_package() -> None:
    module = SpectralFeatureTransform(**SMALL)
    x, y = (cases.signal(22050, kind)[None, :4000] for kind in ("noise", "mixture"))
    program = torch.export.export(module, (x,))
    assert not any("mps_spectro" in str(node.target) for node in program.graph.nodes)
    got, expected = program.module()(y), module(y)
    assert all(cases.error(got[name], expected[name], floor=1.0) < 1e-4 for name in expected)


def test_autocast_does_not_reach_inside(route: Route) -> None:
    x = cases.signal(22050)[None].to(route.device)
    module = SpectralFeatureTransform().to(route.device)
    expected = module(x)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = module(x)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"include": ["loudness"]}, ValueError, "Unknown spectral feature 'loudness'"),
        ({"include": []}, ValueError, "include must name at least one feature"),
        ({"include": "mfcc"}, TypeError, "include must be a sequence of names"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"n_fft": 0}, ValueError, "n_fft must be positive"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"win_length": 4000}, ValueError, "win_length must be in 1"),
        ({"window_fn": "sharp"}, ValueError, "window_fn must be a function or one of"),
        ({"window_fn": torch.ones(9)}, ValueError, "window must have shape"),
        ({"center_pad_mode": "edge"}, ValueError, "center_pad_mode must be one of"),
        ({"center_tail_pad": "none"}, ValueError, "center_tail_pad must be one of"),
        ({"normalized": "energy"}, ValueError, "normalized must be False, True"),
        ({"n_chroma": 0}, ValueError, "n_chroma must be at least 1"),
        ({"chroma_norm": -1}, ValueError, "norm must be None, above 0"),
        ({"tuning": math.nan}, ValueError, "tuning must be finite"),
        ({"bandwidth_p": 0}, ValueError, "bandwidth_p must be positive"),
        ({"roll_percent": 1.0}, ValueError, "roll_percent must lie between 0 and 1"),
        ({"n_bands": 7}, ValueError, "below half of sample_rate"),
        ({"contrast_fmin": -1.0}, ValueError, "fmin must be positive"),
        ({"contrast_quantile": 0.0}, ValueError, "quantile must lie between 0 and 1"),
        ({"n_mfcc": 129}, ValueError, "n_mfcc must be in 1"),
        ({"n_mels": 0}, ValueError, "n_mels must be positive"),
        ({"f_min": 20000.0}, ValueError, "f_min and f_max"),
        ({"mel_norm": "area"}, ValueError, "norm must be None"),
        ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"lifter": -1}, ValueError, "lifter must be at least 0"),
        ({"dct_norm": "unit"}, ValueError, "dct_norm must be"),
    ],
    ids=front_end_cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SpectralFeatureTransform(**change)
    with pytest.raises(error, match=words):
        spectral_features(torch.zeros(4000), **change)


def test_bad_signals() -> None:
    module = SpectralFeatureTransform()
    for x, error, words in (
        ([0.0] * 4000, TypeError, "x must be a torch.Tensor"),
        (torch.zeros(4000, dtype=torch.int16), TypeError, "x must be real and floating point"),
        (torch.tensor(1.0), ValueError, r"x must have shape \(..., T\)"),
        (torch.zeros(0, 4000), ValueError, "empty batch"),
    ):
        for function in (module, spectral_features):
            with pytest.raises(error, match=words):
                function(x)
