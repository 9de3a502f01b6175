"""Cepstra against librosa, torchaudio and scipy, over every route, and what is expected of the module."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import front_end_cases as cases
import librosa_mel_cases as mel_cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor
from torchaudio_stub import import_torchaudio

from mps_spectro import diagnostics, use_backend
from mps_spectro.mfcc import MFCCTransform, dct_matrix, mfcc

# banks of narrow bands warn in every library here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SMALL: dict[str, Any] = {"sample_rate": 16000, "n_fft": 400, "hop_length": 100, "n_mels": 40, "n_mfcc": 13}
FLOAT32 = 2e-6  # largest error over the largest value, noise and mixtures
PURE = 3e-5  # of tones: bands 80 dB below the loudest hold the rounding of float32
FLOAT64 = 1e-12


def librosas(x: Tensor, **options: Any) -> Tensor:
    """librosa in float64."""
    librosa = pytest.importorskip("librosa")
    arguments = mel_cases.librosas(options)
    if "norm" in arguments:
        arguments["mel_norm"] = arguments.pop("norm")
    if "dct_norm" in arguments:
        arguments["norm"] = arguments.pop("dct_norm")
    return torch.from_numpy(librosa.feature.mfcc(y=x.double().numpy(), **arguments))


def fitted(case: dict[str, Any]) -> dict[str, Any]:
    return {"n_mfcc": min(20, case.get("n_mels", 128)), **case}


# --- the cosine transform ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["ortho", None])
@pytest.mark.parametrize(("n_mfcc", "n_mels"), [(20, 128), (13, 40), (1, 1), (1, 7), (40, 40), (23, 80)])
def test_dct_matrix(n_mfcc: int, n_mels: int, norm: str | None) -> None:
    scipy_fft = pytest.importorskip("scipy.fft")
    torchaudio = import_torchaudio()
    got = dct_matrix(n_mfcc, n_mels, norm=norm)
    assert got.dtype == torch.float32 and got.shape == (n_mfcc, n_mels)
    assert cases.absolute(got, torchaudio.functional.create_dct(n_mfcc, n_mels, norm).T) < 2e-5
    bands = cases.noise(n_mels, 9).double()
    expected = torch.from_numpy(scipy_fft.dct(bands.numpy(), axis=0, type=2, norm=norm)[:n_mfcc])
    wide = dct_matrix(n_mfcc, n_mels, norm=norm, dtype=torch.float64)
    assert cases.relative(wide @ bands, expected) < 1e-13
    assert torch.equal(wide.float(), got)


def test_dct_matrix_is_a_fresh_tensor_whatever_the_program_does_by_default() -> None:
    first = dct_matrix(5, 8)
    kept = first.clone()
    first.zero_()
    x = cases.noise(2000)
    # sizes that no other test has left in a cache
    sizes = {**SMALL, "n_fft": 402, "n_mels": 37}
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert torch.equal(dct_matrix(5, 8), kept)
            got, module = mfcc(x, **sizes), MFCCTransform(**sizes)
    finally:
        torch.set_default_dtype(default)
    assert dct_matrix(5, 8, device="meta").device.type == "meta"
    assert torch.equal(module(x), got) and cases.relative(got, librosas(x, **sizes)) < FLOAT32
    assert mfcc(x.to("meta"), **sizes).shape == got.shape


# --- against librosa --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mel_cases.CASES, ids=cases.name)
def test_librosa(case: dict[str, Any]) -> None:
    case = fitted(case)
    x = mel_cases.signal(mel_cases.rate(case))
    expected = librosas(x, **case)
    assert cases.relative(mfcc(x, **case), expected) < FLOAT32
    assert cases.relative(mfcc(x.double(), **case), expected) < FLOAT64
    assert torch.equal(MFCCTransform(**case)(x), mfcc(x, **case))


@pytest.mark.parametrize(
    "change",
    [
        {"n_mfcc": 40},
        {"n_mfcc": 1},
        {"n_mfcc": 128},
        {"lifter": 22},
        {"lifter": 0.5, "n_mfcc": 13},
        {"lifter": 1000.0},
        {"dct_norm": None},
        {"dct_norm": None, "lifter": 13, "n_mfcc": 13},
        {"center": False},
        {"center": False, "n_fft": 800, "hop_length": 200, "win_length": 600},
    ],
    ids=cases.name,
)
def test_arguments_of_librosa(route: Route, change: dict[str, Any]) -> None:
    x = mel_cases.signal(22050, "noise")
    expected = librosas(x, **change)
    assert cases.relative(mfcc(x.to(route.device), **change), expected) < FLOAT32
    got = MFCCTransform(**change).to(route.device)(x.to(route.device))
    assert cases.relative(got, expected) < FLOAT32
    if route.float64:
        assert cases.relative(mfcc(x.to(route.device).double(), **change), expected) < FLOAT64


@pytest.mark.parametrize("kind", mel_cases.KINDS)
def test_signals(route: Route, kind: str) -> None:
    x = mel_cases.signal(22050, kind)
    for case in ({}, {"n_fft": 1024, "hop_length": 441, "n_mels": 64, "center_pad_mode": "reflect"}):
        expected = librosas(x, **case)
        got = mfcc(x.to(route.device), **case)
        assert got.isfinite().all()
        assert cases.relative(got, expected) < (PURE if kind in ("tone", "chirp") else FLOAT32), case


@pytest.mark.parametrize("length", [1, 2, 511, 512, 1023, 1024, 1025])
def test_short_signals(length: int) -> None:
    x = mel_cases.signal(22050)[2000 : 2000 + length]
    assert cases.relative(mfcc(x), librosas(x)) < FLOAT32
    least = 1025
    if length < least:
        for call in (mfcc, lambda x, **options: MFCCTransform(**options)(x)):
            with pytest.raises(ValueError, match="at least 1025 samples"):
                call(x, center_pad_mode="reflect")
    else:
        assert cases.relative(mfcc(x, center_pad_mode="reflect"), librosas(x, center_pad_mode="reflect")) < FLOAT32


@pytest.mark.parametrize("length", [1, 159, 160, 161, 1600, 2345])
def test_minimal_padding(length: int) -> None:
    x = mel_cases.signal(22050)[:length]
    frames = -(-length // 160)
    behind = max(0, (frames - 1) * 160 + 400 - 200 - length)
    padded = torch.nn.functional.pad(x, (200, behind))[: (frames - 1) * 160 + 400]
    sizes = {"n_fft": 400, "hop_length": 160, "n_mels": 40}
    expected = librosas(padded, center=False, **sizes)
    assert expected.shape == (20, frames)
    assert cases.relative(mfcc(x, center_tail_pad="minimal", **sizes), expected) < FLOAT32


def test_wrapped_padding() -> None:
    x = mel_cases.signal(22050)
    expected = librosas(torch.from_numpy(np.pad(x.double().numpy(), 1024, mode="wrap")), center=False)
    assert cases.relative(mfcc(x, center_pad_mode="circular"), expected) < FLOAT32


@pytest.mark.parametrize("name", ["music-stereo-44k1-195s.ogg", "speech-mono-48k-1s.wav"])
def test_recordings(route: Route, name: str) -> None:
    samples, rate = recording(name, 3.0, 65.0 if name.startswith("music") else 0.0)
    for case in ({}, {"n_fft": 1024, "hop_length": 441, "lifter": 22, "n_mfcc": 13, "n_mels": 64}):
        got = mfcc(samples.to(route.device), sample_rate=rate, **case)
        for one, channel in zip(got, samples):
            assert cases.relative(one, librosas(channel, sample_rate=rate, **case)) < PURE


def test_top_db() -> None:
    librosa = pytest.importorskip("librosa")
    x = mel_cases.signal(22050, "late")
    mel = librosa.feature.melspectrogram(y=x.double().numpy())
    for top_db in (None, 0.0, 20.0, 80.0, 200.0):
        expected = torch.from_numpy(librosa.feature.mfcc(S=librosa.power_to_db(mel, top_db=top_db)))
        assert cases.relative(mfcc(x, top_db=top_db), expected) < FLOAT32


def test_every_signal_of_a_batch_is_librosas_of_it_alone(route: Route) -> None:
    x = torch.stack([mel_cases.signal(22050, kind) for kind in ("mixture", "late", "silence", "impulse")])
    x = x * torch.tensor([1.0, 1e-4, 1.0, 1e-3])[:, None]
    got = mfcc(x.to(route.device))
    for one, row in zip(got, x):
        assert cases.relative(one, librosas(row)) < FLOAT32
    whole = mfcc(x.to(route.device), mode="torchaudio_compat")
    expected = librosas(x)
    assert cases.relative(whole, expected) < FLOAT32
    assert cases.relative(got, expected) > 0.01  # the quiet ones are clipped otherwise


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n_mfcc": 40, "n_mels": 80},
        {"norm": "slaney", "mel_scale": "slaney", "f_max": 7600.0, "f_min": 30.0},
        {"win_length": 320, "dct_norm": None},
        {"center_pad_mode": "constant"},
        {"center": False},
    ],
    ids=cases.name,
)
def test_torchaudio(route: Route, change: dict[str, Any]) -> None:
    torchaudio = import_torchaudio()
    arguments = {**SMALL, "norm": None, "mel_scale": "htk", "center_pad_mode": "reflect", **change}
    mel_arguments = {name: arguments[name] for name in ("n_fft", "hop_length", "n_mels", "norm", "mel_scale")}
    mel_arguments["pad_mode"] = arguments["center_pad_mode"]
    mel_arguments |= {name: change[name] for name in ("win_length", "f_min", "f_max", "center") if name in change}
    theirs = torchaudio.transforms.MFCC(
        16000, arguments["n_mfcc"], norm=arguments.get("dct_norm", "ortho"), melkwargs=mel_arguments
    ).double()
    x = cases.noise(3, 2, 5000) * torch.tensor([1e-6, 1.0])[:, None]
    # four dimensions of a spectrogram: its group is one entry of the batch in both
    expected = theirs(x.double())
    got = MFCCTransform(**arguments, mode="torchaudio_compat").to(route.device)(x.to(route.device))
    # torchaudio computes its bank in float32
    assert cases.relative(got, expected) < 1e-5


# --- spectrograms that the caller has ---------------------------------------------------------------------------------


def test_a_spectrogram_in_place_of_a_signal(route: Route) -> None:
    librosa = pytest.importorskip("librosa")
    x = mel_cases.signal(22050)
    db = librosa.power_to_db(librosa.feature.melspectrogram(y=x.numpy(), n_mels=64))
    s = torch.from_numpy(db).to(route.device)
    expected = torch.from_numpy(librosa.feature.mfcc(S=db, n_mfcc=13, lifter=7))
    assert cases.relative(mfcc(S=s, n_mfcc=13, lifter=7), expected) < FLOAT32
    assert torch.equal(mfcc(S=s.expand(2, 3, -1, -1), n_mfcc=13)[1, 2], mfcc(S=s, n_mfcc=13))
    assert mfcc(S=s.half()).dtype == torch.float32


# --- shapes and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 2, 3)])
def test_leading_dimensions_are_kept(route: Route, shape: tuple[int, ...]) -> None:
    x = cases.noise(*shape, 2000).to(route.device)
    got = mfcc(x, **SMALL)
    assert got.shape == (*shape, 13, 21) and got.transpose(-1, -2).is_contiguous()
    one = mfcc(x.reshape(-1, 2000)[-1], **SMALL)
    assert cases.absolute(got.reshape(-1, 13, 21)[-1], one) < 1e-4
    assert torch.equal(MFCCTransform(**SMALL)(x), got)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(route: Route, dtype: torch.dtype) -> None:
    x = cases.noise(2, 4000).to(dtype).to(route.device)
    module = MFCCTransform(**SMALL).to(route.device)
    expected = module(x.float())
    assert torch.equal(module(x), expected) and expected.dtype == torch.float32
    assert torch.equal(mfcc(x, **SMALL), expected)
    module.to(dtype)
    assert all(buffer.dtype == torch.float32 for buffer in module.buffers())
    assert torch.equal(module(x), expected)


def test_float64_stays_float64() -> None:
    x = mel_cases.signal(22050).double()
    for module in (MFCCTransform(), MFCCTransform().double()):
        assert module(x).dtype == torch.float64
        assert cases.relative(module(x), librosas(x)) < 1e-6  # its window is that of float32


# --- the module -------------------------------------------------------------------------------------------------------


def test_two_kernels_and_one_product(route: Route) -> None:
    module = MFCCTransform(**SMALL).to(route.device)
    x = cases.noise(2, 4000).to(route.device)
    for call in (module, lambda x: mfcc(x, **SMALL)):
        call(x)
        diagnostics(reset=True)
        call(x)
        report = diagnostics(reset=True)
        assert report["kernel_calls"] == ({"bands": 1, "clip_": 1} if route.kernels else {})
        assert report["torch_route"] == ({} if route.kernels else {"backend torch": 1})


def test_copies_pickles_and_state_dicts() -> None:
    x = cases.noise(2, 4000)
    module = MFCCTransform(**SMALL, lifter=22, window_fn=torch.hamming_window(400))
    expected = module(x)
    module.get_compiled(backend="eager")(x)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    assert torch.equal(torch.load(stored, weights_only=False)(x), expected)
    assert module.state_dict() == {} and not list(module.parameters())
    module.load_state_dict({})
    assert {name for name, _ in module.named_buffers()} == {"window", "mel_basis", "dct"}


def test_a_module_is_not_changed_by_another() -> None:
    x = cases.noise(2, 4000)
    module, other = (MFCCTransform(**SMALL) for _ in range(2))
    expected = other(x)
    for buffer in module.buffers():
        buffer.zero_()
    assert torch.equal(other(x), expected) and torch.equal(mfcc(x, **SMALL), expected)
    assert (module(x) == 0).all()


def test_buffers_follow_the_module_or_the_signal(route: Route) -> None:
    module = MFCCTransform(**SMALL)
    x = cases.noise(2, 4000).to(route.device)
    stays = module(x)
    assert {buffer.device.type for buffer in module.buffers()} == {"cpu"}
    module.to(route.device)
    assert {buffer.device.type for buffer in module.buffers()} == {route.device}
    assert torch.equal(module(x), stays)


def test_attributes_and_repr() -> None:
    module = MFCCTransform(**SMALL, win_length=300, window_fn=torch.hann_window)
    assert (module.n_mfcc, module.n_mels, module.hop_length, module.win_length) == (13, 40, 100, 300)
    assert MFCCTransform().win_length == 2048 and repr(MFCCTransform()) == "MFCCTransform()"
    assert repr(module) == (
        "MFCCTransform(sample_rate=16000, n_mfcc=13, n_fft=400, hop_length=100, win_length=300, n_mels=40, "
        "window_fn=hann_window)"
    )
    assert repr(MFCCTransform(window_fn=torch.ones(2048))) == "MFCCTransform(window_fn=(2048,))"


def test_modules_made_in_inference_mode_train() -> None:
    x = cases.noise(2, 4000)
    with torch.inference_mode():
        mfcc(x, **{**SMALL, "n_mfcc": 11})
        module = MFCCTransform(**{**SMALL, "n_mfcc": 11})
    x.requires_grad_()
    (module(x).sum() + mfcc(x, **{**SMALL, "n_mfcc": 11}).sum()).backward()
    assert x.grad is not None and x.grad.isfinite().all()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lifter": 6}, {"power": 1.0, "dct_norm": None}, {"top_db": 15.0}])
def test_gradcheck(options: dict[str, Any]) -> None:
    x = cases.noise(2, 20).double().requires_grad_()
    window = (torch.hann_window(16, dtype=torch.float64) + 0.1).requires_grad_()
    sizes = {"sample_rate": 800, "n_fft": 16, "hop_length": 8, "n_mels": 5, "n_mfcc": 4}

    def function(x: Tensor, window: Tensor) -> Tensor:
        return mfcc(x, window_fn=window, **sizes, **options)

    assert torch.autograd.gradcheck(function, (x, window))
    db = cases.noise(2, 6, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: mfcc(S=s, n_mfcc=4, lifter=3), db)


def test_gradients_are_those_of_float64(route: Route) -> None:
    if not route.kernels:
        pytest.skip("it is the reference")
    x = cases.noise(2, 4000)
    leaf, exact = x.to(route.device, copy=True).requires_grad_(), x.double().requires_grad_()
    got = MFCCTransform(**SMALL).to(route.device)(leaf)
    weights = cases.noise(*got.shape, seed=3)
    (got * weights.to(route.device)).sum().backward()
    with use_backend("torch"):
        (mfcc(exact, **SMALL) * weights.double()).sum().backward()
    assert cases.relative(leaf.grad, exact.grad) < 2e-5


@pytest.mark.parametrize("kind", ["silence", "dc", "impulse", "late"])
def test_gradients_are_finite(route: Route, kind: str) -> None:
    for power in (1.0, 2.0, 3.0):
        x = mel_cases.signal(22050, kind).to(route.device).clone().requires_grad_()
        mfcc(x, power=power, n_fft=512, n_mels=40).square().sum().backward()
        assert x.grad.isfinite().all(), power


# --- compile, export, vmap, autocast ----------------------------------------------------------------------------------


def test_get_compiled_equals_eager() -> None:
    module = MFCCTransform(**SMALL, lifter=22)
    compiled = module.get_compiled()
    assert compiled is module.get_compiled()
    for length in (4000, 4321, 5000):
        x, y = (cases.noise(2, length).requires_grad_() for _ in range(2))
        got, expected = compiled(x), module(y)
        assert cases.absolute(got, expected) < 1e-4
        got.square().sum().backward()
        expected.square().sum().backward()
        assert cases.relative(x.grad, y.grad) < 1e-5


def test_compiles_whole() -> None:
    torch.compiler.reset()
    module = MFCCTransform(**SMALL)
    x = cases.noise(2, 4000)
    for call in (module, lambda x: mfcc(x, **SMALL)):
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        assert cases.absolute(compiled(x), call(x)) < 1e-4


def test_exports_without_the_package() -> None:
    module = MFCCTransform(**SMALL, lifter=22)
    program = torch.export.export(module, (cases.noise(2, 4000),))
    assert not any("mps_spectro" in str(node.target) for node in program.graph.nodes)
    x = cases.noise(2, 4000, seed=1)
    assert cases.absolute(program.module()(x), module(x)) < 1e-4


def test_vmap_and_per_example_gradients() -> None:
    module = MFCCTransform(**SMALL)
    x = cases.noise(3, 2, 4000)
    assert cases.absolute(torch.vmap(module)(x), module(x)) < 1e-4
    assert cases.absolute(torch.vmap(lambda x: mfcc(x, **SMALL))(x), module(x)) < 1e-4
    got = torch.vmap(torch.func.grad(lambda x: module(x).square().sum()))(x)
    leaf = x.clone().requires_grad_()
    module(leaf).square().sum().backward()
    assert cases.relative(got, leaf.grad) < 1e-5


def test_autocast_does_not_reach_inside(route: Route) -> None:
    module = MFCCTransform(**SMALL).to(route.device)
    x = cases.noise(2, 4000).to(route.device)
    expected = module(x)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got, function = module(x), mfcc(x, **SMALL)
    assert got.dtype == torch.float32 and torch.equal(got, expected) and torch.equal(function, expected)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_mfcc": 0}, ValueError, "n_mfcc must be in 1 .. n_mels=40, got 0"),
        ({"n_mfcc": 41}, ValueError, "n_mfcc must be in 1 .. n_mels=40, got 41"),
        ({"n_mfcc": 2.0}, TypeError, "n_mfcc must be an int"),
        ({"n_mels": 0}, ValueError, "n_mels must be positive"),
        ({"lifter": -1}, ValueError, "lifter must be at least 0"),
        ({"lifter": float("nan")}, ValueError, "lifter must be at least 0"),
        ({"dct_norm": "backward"}, ValueError, "dct_norm must be 'ortho' or None"),
        ({"norm": "area"}, ValueError, "norm must be None or 'slaney'"),
        ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of"),
        ({"f_min": 9000.0}, ValueError, "f_min and f_max"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"n_fft": 0}, ValueError, "n_fft must be positive"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"win_length": 401}, ValueError, "win_length must be in 1"),
        ({"power": 0.0}, ValueError, "power must be positive"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"mode": "packed"}, ValueError, "mode must be one of"),
        ({"center": 1}, TypeError, "center must be True or False"),
        ({"center_pad_mode": "mirror"}, ValueError, "center_pad_mode must be one of"),
        ({"center_tail_pad": "none"}, ValueError, "center_tail_pad must be one of"),
        ({"center_tail_pad": "minimal", "center_pad_mode": "reflect"}, ValueError, "must go with"),
        ({"window_fn": "sharp"}, ValueError, "window_fn must be a function or one of"),
        ({"window_fn": torch.ones(399)}, ValueError, "window must have shape"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mfcc(torch.zeros(4000), **{**SMALL, **change})
    with pytest.raises(error, match=words):
        MFCCTransform(**{**SMALL, **change})


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ({}, ValueError, "exactly one of x and S must be given, got neither"),
        ({"x": torch.zeros(4000), "S": torch.zeros(40, 9)}, ValueError, "exactly one of x and S"),
        ({"x": [0.0] * 4000}, TypeError, "x must be a torch.Tensor"),
        ({"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ({"x": torch.tensor(1.0)}, ValueError, r"x must have shape \(..., T\)"),
        ({"x": torch.zeros(0, 4000)}, ValueError, "empty batch"),
        ({"x": torch.zeros(399), "center": False}, ValueError, "at least 400 samples"),
        ({"S": np.zeros((40, 9))}, TypeError, "S must be a torch.Tensor"),
        ({"S": torch.zeros(40, 9, dtype=torch.int64)}, TypeError, "S must be real and floating point"),
        ({"S": torch.zeros(40)}, ValueError, r"S must have shape \(..., bands, frames\)"),
        ({"S": torch.zeros(12, 9)}, ValueError, "n_mfcc must be in 1 .. n_mels=12, got 13"),
    ],
    ids=cases.name,
)
def test_bad_inputs(inputs: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mfcc(**inputs, **SMALL)


def test_bad_sizes_of_the_matrix() -> None:
    for arguments, words in (((0, 4), "n_mfcc must be in"), ((5, 4), "n_mfcc must be in"), ((1, 0), "n_mels must be")):
        with pytest.raises(ValueError, match=words):
            dct_matrix(*arguments)
    with pytest.raises(ValueError, match="^norm must be 'ortho' or None"):
        dct_matrix(3, 4, norm="slaney")


def test_silence_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mfcc(torch.zeros(3, 1), n_fft=2048).isfinite().all()
