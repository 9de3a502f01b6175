"""Mel front ends against torchaudio and librosa over every route, and what is expected of modules."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from typing import Any, Callable

import front_end_cases as cases
import pytest
import torch
from conftest import Route
from graphs import counting
from torch import Tensor, nn
from torchaudio_stub import import_torchaudio

from mps_spectro import (
    CompatMelSpectrogramTransform,
    LogMelSpectrogramTransform,
    MelSpectrogramTransform,
    diagnostics,
    mel_spectrogram,
    melscale_fbanks,
    use_backend,
)

# banks of narrow bands warn in every library here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIZES = {"sample_rate": 16000, "n_fft": 400, "hop_length": 100}


def wide_mel(x: Tensor, **options: Any) -> Tensor:
    """The linear mel spectrogram in float64 by plain torch, whatever the route."""
    with use_backend("torch"):
        return mel_spectrogram(x.double(), **SIZES, n_mels=40, output_scale="linear", **options)


def exact(case: dict[str, Any]) -> tuple[Any, Any]:
    """torchaudio's transform, in float64 and as it is."""
    torchaudio = import_torchaudio()
    arguments = {name: value for name, value in case.items() if name != "shape"}
    theirs = torchaudio.transforms.MelSpectrogram(**arguments)
    return copy.deepcopy(theirs).double(), theirs


def compare_with_torchaudio(case: dict[str, Any], route: Route) -> None:
    torchaudio = import_torchaudio()
    wide, theirs = exact(case)
    x = cases.signal(case)
    expected, native = wide(x.double()), theirs(x)
    arguments = {name: value for name, value in case.items() if name != "shape"}
    mine = CompatMelSpectrogramTransform(**arguments, top_db=80.0).to(route.device)
    on_device = x.to(route.device)
    got = mine(on_device)
    assert cases.relative(got, expected) <= cases.LINEAR, case
    assert got.stride() == native.stride()
    to_db = torchaudio.transforms.AmplitudeToDB("magnitude" if case["power"] == 1 else "power", top_db=80.0)
    for scale, convert in (("db", to_db), ("log", lambda m: m.clamp(min=1e-5).log())):
        got = mine(on_device, output_scale=scale)
        # a band of one bin where noise nearly vanishes has no more digits in float32, in torchaudio neither
        limit = max(cases.LOGARITHMIC, 2.0 * cases.absolute(convert(native), convert(expected)))
        assert cases.absolute(got, convert(expected)) <= limit, (scale, case)


@pytest.mark.parametrize("case", cases.sample(24), ids=cases.name)
def test_torchaudio(route: Route, case: dict[str, Any]) -> None:
    compare_with_torchaudio(case, route)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(24))
def test_torchaudio_over_the_grid(route: Route, part: int) -> None:
    for case in list(cases.grid())[part::24]:
        compare_with_torchaudio(case, route)


def test_defaults_are_torchaudios(route: Route) -> None:
    torchaudio = import_torchaudio()
    x = cases.noise(2, 5000)
    expected = torchaudio.transforms.MelSpectrogram().double()(x.double())
    assert (
        cases.relative(CompatMelSpectrogramTransform().to(route.device)(x.to(route.device)), expected) <= cases.LINEAR
    )
    theirs = inspect.signature(torchaudio.transforms.MelSpectrogram.__init__).parameters
    ours = inspect.signature(CompatMelSpectrogramTransform.__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        if name != "self":
            assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name


@pytest.mark.parametrize(
    "change",
    [
        {"window_fn": torch.hamming_window, "wkwargs": {"periodic": False, "alpha": 0.6}},
        {"window_fn": torch.kaiser_window, "wkwargs": {"periodic": True, "beta": 7.0}},
        {"window_fn": lambda length: torch.linspace(0.1, 1.0, length)},
        {"pad": 77},
        {"center": False},
        {"pad_mode": "replicate"},
        {"win_length": 300},
        {"win_length": 300, "hop_length": 70, "normalized": True},
        {"f_min": 120.5, "f_max": 3900.0},
    ],
    ids=cases.name,
)
def test_every_argument_of_torchaudio(route: Route, change: dict[str, Any]) -> None:
    torchaudio = import_torchaudio()
    x = cases.noise(2, 5000)
    expected = torchaudio.transforms.MelSpectrogram(n_mels=40, **change).double()(x.double())
    got = CompatMelSpectrogramTransform(n_mels=40, **change).to(route.device)(x.to(route.device))
    assert cases.relative(got, expected) <= cases.LINEAR


@pytest.mark.parametrize("shape", [(5000,), (3, 5000), (2, 3, 5000), (2, 1, 3, 5000)])
@pytest.mark.parametrize("mode", ["per_example", "torchaudio_compat"])
def test_db_of_batches(route: Route, shape: tuple[int, ...], mode: str) -> None:
    torchaudio = import_torchaudio()
    quiet = torch.logspace(-4, 0, shape[-2]).unsqueeze(-1) if len(shape) > 1 else torch.tensor(1.0)
    x = cases.noise(*shape) * quiet
    module = MelSpectrogramTransform(**SIZES, n_mels=40, top_db=30.0, mode=mode).to(route.device)
    got = module(x.to(route.device))
    linear = wide_mel(x)
    to_db = torchaudio.transforms.AmplitudeToDB("power", top_db=30.0)
    if mode == "torchaudio_compat":
        expected = to_db(linear)
    else:
        flat = [to_db(one) for one in linear.reshape(-1, *linear.shape[-2:])]
        expected = torch.stack(flat).reshape(linear.shape)
    assert cases.absolute(got, expected) <= cases.LOGARITHMIC


def test_librosa(route: Route) -> None:
    librosa = pytest.importorskip("librosa")
    for case in cases.sample(8):
        x = cases.noise(2, 3 * case["n_fft"] + 777)
        shared = {"n_fft": case["n_fft"], "hop_length": case["hop_length"], "n_mels": case["n_mels"]}
        options = {"power": case["power"], "norm": case["norm"], "dtype": "float64"}
        y, htk = x.double().numpy(), case["mel_scale"] == "htk"
        mel = librosa.feature.melspectrogram(y=y, sr=case["sample_rate"], htk=htk, **shared, **options)
        convert = librosa.amplitude_to_db if case["power"] == 1 else librosa.power_to_db
        db = torch.stack([torch.from_numpy(convert(one, ref=1.0, amin=1e-10)) for one in mel])
        module = MelSpectrogramTransform.preset(
            "librosa",
            sample_rate=case["sample_rate"],
            mel_scale=case["mel_scale"],
            norm=case["norm"],
            power=case["power"],
            **shared,
        ).to(route.device)
        assert cases.relative(module(x.to(route.device)), torch.from_numpy(mel)) <= cases.LINEAR, case
        assert cases.absolute(module(x.to(route.device), to_db=True), db) <= cases.LOGARITHMIC, case


# --- scales -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "convert"),
    [
        ({}, lambda m: torch.log(m.clamp(min=1e-5))),
        ({"log_amin": 1.0}, lambda m: torch.log(m.clamp(min=1.0))),
        ({"log_mode": "add", "log_amin": 1e-3}, lambda m: torch.log(m + 1e-3)),
        ({"log_mode": "log1p"}, lambda m: torch.log1p(m / 1e-5)),
        ({"log_mode": "log1p", "log_scale": 10.0}, lambda m: torch.log1p(10.0 * m)),
    ],
    ids=cases.name,
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_log_modes(route: Route, options: dict[str, Any], convert: Callable[[Tensor], Tensor], power: float) -> None:
    x = cases.noise(2, 4000)
    linear = wide_mel(x, power=power)
    got = mel_spectrogram(x.to(route.device), **SIZES, n_mels=40, power=power, output_scale="log", **options)
    assert cases.absolute(got, convert(linear)) <= cases.LOGARITHMIC
    module = LogMelSpectrogramTransform(**SIZES, n_mels=40, power=power, **options).to(route.device)
    assert torch.equal(module(x.to(route.device)), got)


@pytest.mark.parametrize(("power", "factor"), [(1.0, 20.0), (2.0, 10.0), (1.5, 10.0)])
def test_db_is_twenty_for_magnitudes(route: Route, power: float, factor: float) -> None:
    x = cases.noise(2, 4000)
    linear = wide_mel(x, power=power)
    got = mel_spectrogram(x.to(route.device), **SIZES, n_mels=40, power=power, top_db=None)
    assert cases.absolute(got, factor * linear.clamp(min=1e-10).log10()) <= cases.LOGARITHMIC


def test_log_base_range_and_affine(route: Route) -> None:
    x = cases.noise(2, 4000)
    options = {"output_scale": "log", "log_base": 2.0, "dynamic_range": 6.0, "affine": (0.5, -3.0)}
    module = MelSpectrogramTransform(**SIZES, n_mels=40, **options).to(route.device)
    log = wide_mel(x).clamp(min=1e-5).log2()
    expected = 0.5 * torch.maximum(log, log.amax((-2, -1), keepdim=True) - 6.0) - 3.0
    assert cases.absolute(module(x.to(route.device)), expected) <= cases.LOGARITHMIC


def test_scales_by_call() -> None:
    x = cases.noise(2, 4000)
    module = MelSpectrogramTransform(**SIZES, n_mels=40)
    assert torch.equal(module(x), module.mel_spectrogram(x, output_scale="db"))
    assert torch.equal(module(x, to_db=False), module(x, output_scale="linear"))
    assert torch.equal(module(x, to_db=True), module(x))
    linear = module(x, output_scale="linear")
    assert cases.relative(module.mel_basis @ module.spectrogram(x), linear) < 1e-6
    with pytest.raises(ValueError, match="must not both be given"):
        module(x, output_scale="db", to_db=True)


# --- function and modules ---------------------------------------------------------------------------------------------


def test_function_and_module_agree(route: Route) -> None:
    x = cases.noise(2, 3, 4000).to(route.device)
    arguments = {**SIZES, "win_length": 320, "n_mels": 40, "f_min": 50.0, "norm": "slaney", "normalized": True}
    module = MelSpectrogramTransform(**arguments).to(route.device)
    assert torch.equal(mel_spectrogram(x, **arguments), module(x))
    window = torch.hann_window(320).to(route.device)  # a device may round its cosines otherwise
    bank = melscale_fbanks(201, 50.0, None, 40, 16000, "slaney").to(route.device)
    got = mel_spectrogram(x, **{**arguments, "f_min": 0.0, "n_mels": 7}, window=window, mel_basis=bank)
    assert torch.equal(got, module(x))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 2, 3)])
def test_leading_dimensions_are_kept(route: Route, shape: tuple[int, ...]) -> None:
    x = cases.noise(*shape, 2000).to(route.device)
    got = mel_spectrogram(x, **SIZES, n_mels=40)
    assert got.shape == (*shape, 40, 21)
    one = mel_spectrogram(x.reshape(-1, 2000)[-1], **SIZES, n_mels=40)
    assert cases.absolute(got.reshape(-1, 40, 21)[-1], one) < 1e-4
    transposed = x.unsqueeze(-1).expand(*shape, 2000, 2).transpose(-1, -2)[..., 0, :]
    assert torch.equal(mel_spectrogram(transposed, **SIZES, n_mels=40), got)


def test_the_shape_of_the_contract() -> None:
    got = mel_spectrogram(torch.randn(1, 64), sample_rate=8000, n_fft=16, hop_length=4, n_mels=8)
    assert got.shape == (1, 8, 17)


def test_one_kernel_and_nothing_else(route: Route) -> None:
    module = LogMelSpectrogramTransform(**SIZES, n_mels=40, pad_mode="reflect").to(route.device)
    x = cases.noise(2, 4000).to(route.device)
    module(x)
    diagnostics(reset=True)
    module(x)
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == ({"bands": 1} if route.kernels else {})
    assert report["torch_route"] == ({} if route.kernels else {"backend torch": 1})


def test_use_mps_kernels_false_takes_torch(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    expected = mel_spectrogram(x, **SIZES, n_mels=40)
    diagnostics(reset=True)
    got = mel_spectrogram(x, **SIZES, n_mels=40, use_mps_kernels=False)
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == {} and report["torch_route"] == {"use_mps_kernels=False": 1}
    assert cases.absolute(got, expected) <= cases.LOGARITHMIC


@pytest.mark.parametrize(
    "window_fn", ["hann", "hamming", "rect", "blackman", "cosine", "nuttall", torch.bartlett_window]
)
@pytest.mark.parametrize("periodic", [True, False])
def test_windows_by_name(window_fn: Any, periodic: bool) -> None:
    x = cases.noise(2, 4000)
    if callable(window_fn):
        window = window_fn(400, periodic=periodic)
    elif window_fn == "rect":
        window = torch.ones(400)
    else:
        window = getattr(torch.signal.windows, window_fn)(400, sym=not periodic)
    got = MelSpectrogramTransform(**SIZES, n_mels=40, window_fn=window_fn, periodic=periodic)(x)
    given = mel_spectrogram(x, **SIZES, n_mels=40, window=window)
    assert cases.absolute(got, given) < 1e-4
    assert torch.equal(mel_spectrogram(x, **SIZES, n_mels=40, window_fn=window), given)
    if periodic:
        assert torch.equal(got, mel_spectrogram(x, **SIZES, n_mels=40, window_fn=window_fn))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(route: Route, dtype: torch.dtype) -> None:
    x = cases.noise(2, 4000).to(dtype).to(route.device)
    module = MelSpectrogramTransform(**SIZES, n_mels=40).to(route.device)
    expected = module(x.float())
    assert torch.equal(module(x), expected) and expected.dtype == torch.float32
    assert torch.equal(mel_spectrogram(x, **SIZES, n_mels=40), expected)
    module.to(dtype)
    assert module.window.dtype == torch.float32 and torch.equal(module(x), expected)


def test_float64_stays_float64() -> None:
    x = cases.noise(2, 4000).double()
    module = MelSpectrogramTransform(**SIZES, n_mels=40, output_scale="linear")
    assert module(x).dtype == torch.float64
    torchaudio = import_torchaudio()
    theirs = torchaudio.transforms.MelSpectrogram(16000, 400, hop_length=100, n_mels=40, pad_mode="constant").double()
    assert cases.relative(module(x), theirs(x)) < 1e-13
    assert cases.relative(module.double()(x), theirs(x)) < 1e-13


def test_center_tail_pad_minimal() -> None:
    for length in (1, 99, 100, 101, 1000, 1777):
        x = cases.noise(2, length)
        got = MelSpectrogramTransform(**SIZES, n_mels=40, center_tail_pad="minimal")(x)
        frames = -(-length // 100)
        padded = nn.functional.pad(x, (200, (frames - 1) * 100 + 400 - 200 - length + 400))[
            :, : (frames - 1) * 100 + 400
        ]
        assert got.shape == (2, 40, frames)
        assert cases.absolute(got, mel_spectrogram(padded, **SIZES, n_mels=40, center=False)) < 1e-3


def test_padding_by_number_and_by_same() -> None:
    x = cases.noise(2, 4000)
    for mode in ("reflect", "constant", "circular", "replicate"):
        by_hand = nn.functional.pad(x.unsqueeze(1), (150, 150), mode=mode).squeeze(1)
        expected = mel_spectrogram(by_hand, **SIZES, n_mels=40, center=False)
        for padding in (150, "same"):
            got = MelSpectrogramTransform(**SIZES, n_mels=40, padding=padding, pad_mode=mode)(x)
            assert cases.absolute(got, expected) < 1e-4


# --- modules as modules -----------------------------------------------------------------------------------------------

MODULES: list[Callable[[], nn.Module]] = [
    lambda: MelSpectrogramTransform(**SIZES, n_mels=40),
    lambda: LogMelSpectrogramTransform(**SIZES, n_mels=40, log_mode="add"),
    lambda: CompatMelSpectrogramTransform(n_mels=40, normalized=True, wkwargs={"periodic": False}),
    lambda: LogMelSpectrogramTransform.preset("whisper"),
]


@pytest.mark.parametrize("make", MODULES)
def test_copies_pickles_and_state_dicts(make: Callable[[], nn.Module]) -> None:
    x = cases.noise(2, 4000)
    module = make()
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
    assert {name for name, _ in module.named_buffers()} == {"window", "mel_basis"}


def test_a_module_is_not_changed_by_another_or_by_writing_to_its_buffers() -> None:
    x = cases.noise(2, 4000)
    module, other = (MelSpectrogramTransform(**SIZES, n_mels=40) for _ in range(2))
    expected = other(x)
    module.window.zero_()
    module.mel_basis.zero_()
    assert torch.equal(other(x), expected)
    assert torch.equal(mel_spectrogram(x, **SIZES, n_mels=40), expected)
    assert (module(x, output_scale="linear") == 0).all()


def test_buffers_follow_the_module_or_the_signal(route: Route) -> None:
    module = MelSpectrogramTransform(**SIZES, n_mels=40)
    x = cases.noise(2, 4000).to(route.device)
    stays = module(x)
    assert module.window.device.type == "cpu"
    module.to(route.device)
    assert module.window.device.type == module.mel_basis.device.type == route.device
    assert torch.equal(module(x), stays)


def test_state_dict_of_torchaudios_module_is_accepted() -> None:
    torchaudio = import_torchaudio()
    theirs = nn.Sequential(torchaudio.transforms.MelSpectrogram(n_mels=40), nn.Linear(3, 3))
    ours = nn.Sequential(CompatMelSpectrogramTransform(n_mels=40), nn.Linear(3, 3))
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours[1].weight, theirs[1].weight)


def test_repr() -> None:
    module = MelSpectrogramTransform(**SIZES, n_mels=40, norm="slaney", window_fn=torch.hamming_window)
    expected = "sample_rate=16000, n_fft=400, hop_length=100, n_mels=40, norm='slaney', window_fn=hamming_window"
    assert repr(module) == f"MelSpectrogramTransform({expected})"
    assert repr(CompatMelSpectrogramTransform(n_mels=40, power=1.0)) == (
        "CompatMelSpectrogramTransform(n_mels=40, power=1.0)"
    )


def test_compat_is_the_class_with_torchaudios_arguments() -> None:
    module = MelSpectrogramTransform.compat(n_fft=512, n_mels=40)
    assert type(module) is CompatMelSpectrogramTransform and module._spectrum.hop_length == 256


def test_modules_made_in_inference_mode_train(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    with torch.inference_mode():
        mel_spectrogram(x, **SIZES, n_mels=43)
        module = MelSpectrogramTransform(**SIZES, n_mels=43)
    x.requires_grad_()
    mel_spectrogram(x, **SIZES, n_mels=43).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert module(x.detach()).shape == (2, 43, 41)


def test_caches_stay_bounded() -> None:
    x = cases.noise(1, 600)
    for n_mels in range(2, 80):
        mel_spectrogram(
            x, sample_rate=8000, n_fft=64 + n_mels, hop_length=40, n_mels=n_mels % 5 + 2, window_fn="blackman"
        )
    for name, report in diagnostics()["caches"].items():
        assert report["size"] <= report["limit"], name


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"output_scale": "linear"}, {"output_scale": "log"}, {"top_db": 25.0}], ids=cases.name
)
@pytest.mark.parametrize("power", [1.0, 2.0, 1.5])
def test_gradients_are_torchs(route: Route, options: dict[str, Any], power: float) -> None:
    x = cases.noise(2, 2, 3000)

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.clone().requires_grad_()

    window, bank = torch.hann_window(400) + 0.05, melscale_fbanks(201, 0.0, None, 40, 16000) + 0.01
    ours = [leaf(tensor.to(route.device)) for tensor in (x, window, bank)]
    exact = [leaf(tensor.double()) for tensor in (x, window, bank)]
    arguments = {**SIZES, "power": power, **options}
    got = mel_spectrogram(ours[0], window=ours[1], mel_basis=ours[2], **arguments)
    spec = torch.stft(
        exact[0].flatten(0, 1), 400, 100, window=exact[1], pad_mode="constant", return_complex=True
    ).unflatten(0, (2, 2))
    mel = exact[2] @ spec.abs() ** power
    if options.get("output_scale") == "log":
        mel = mel.clamp(min=1e-5).log()
    elif "top_db" in options:
        mel = (20.0 if power == 1 else 10.0) * mel.clamp(min=1e-10).log10()
        mel = torch.maximum(mel, mel.amax((-2, -1), keepdim=True) - 25.0)
    weights = cases.noise(*mel.shape, seed=2)
    (got * weights.to(route.device)).sum().backward()
    (mel * weights.double()).sum().backward()
    for name, one, other in zip(("x", "window", "mel_basis"), ours, exact):
        assert cases.relative(one.grad, other.grad) < 2e-5, name


def test_gradients_of_modules_at_silence(route: Route) -> None:
    for name in ("whisper", "rmvpe", "hifigan", "nemo", "librosa", "torchaudio"):
        module = MelSpectrogramTransform.preset(name).to(route.device)
        x = torch.zeros(2, 6000, device=route.device).requires_grad_()
        module(x).sum().backward()
        assert x.grad.isfinite().all(), name


def test_a_bank_learns(route: Route) -> None:
    x = cases.noise(4, 3000).to(route.device)
    logarithm = (melscale_fbanks(201, 0.0, None, 20, 16000) + 0.01).log().to(route.device).requires_grad_()
    optimizer = torch.optim.Adam([logarithm], lr=0.05)
    target = mel_spectrogram(x, **SIZES, n_mels=20, mel_scale="slaney", output_scale="log")
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        got = mel_spectrogram(x, **SIZES, mel_basis=logarithm.exp(), output_scale="log")
        loss = (got - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0] and all(later < earlier for earlier, later in zip(losses, losses[1:]))


# --- compile, export, vmap, autocast ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODULES)
def test_compiles_whole(make: Callable[[], nn.Module]) -> None:
    module = make()
    compiled = torch.compile(make(), fullgraph=True, backend="aot_eager")
    for length in (4000, 4321, 5000):
        x, y = (cases.noise(2, length).requires_grad_() for _ in range(2))
        got, expected = compiled(x), module(y)
        assert cases.absolute(got, expected) < 1e-4
        got.sum().backward()
        expected.sum().backward()
        assert cases.relative(x.grad, y.grad) < 1e-5


def test_the_function_compiles_whole() -> None:
    def function(x: Tensor, n_mels: int) -> Tensor:
        return mel_spectrogram(x, **SIZES, n_mels=n_mels, mel_scale="slaney", norm="slaney")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for n_mels in (20, 30, 40):
        x = cases.noise(2, 4000)
        assert cases.absolute(compiled(x, n_mels), function(x, n_mels)) < 1e-4


def test_get_compiled_is_kept_by_scale() -> None:
    graphs, backend = counting()
    module = MelSpectrogramTransform(**SIZES, n_mels=40)
    x = cases.noise(2, 4000)
    assert module.get_compiled() is module.get_compiled(to_db=True) is module.get_compiled(output_scale="db")
    assert module.get_compiled(to_db=False) is module.get_compiled(output_scale="linear")
    assert module.get_compiled() is module.get_compiled(backend="aot_eager") is not module.get_compiled(backend=backend)
    for scale in ("db", "linear", "db"):
        compiled = module.get_compiled(output_scale=scale, backend=backend)
        assert torch.equal(compiled(x), module(x, output_scale=scale))
    assert len(graphs) == 2
    assert torch.equal(copy.deepcopy(module)(x), module(x)) and torch.equal(
        pickle.loads(pickle.dumps(module))(x), module(x)
    )
    log = LogMelSpectrogramTransform(**SIZES, n_mels=40)
    assert log.get_compiled() is log.get_compiled()
    assert cases.absolute(log.get_compiled()(x), log(x)) < 1e-4
    with pytest.raises(TypeError):
        log.get_compiled(output_scale="db")


def test_more_modules_than_the_compilers_limit_are_compiled() -> None:
    graphs, backend = counting()
    x = cases.noise(1, 1000)
    count = torch._dynamo.config.recompile_limit + 2
    for n_mels in range(10, 10 + count):
        module = MelSpectrogramTransform(sample_rate=8000, n_fft=128, hop_length=32, n_mels=n_mels)
        assert torch.equal(module.get_compiled(backend=backend)(x), module(x))
    assert len(graphs) == count


@pytest.mark.parametrize("name", ["librosa", "whisper", "hifigan", "fcpe", "nemo"])
def test_exports_without_the_package(name: str) -> None:
    module = LogMelSpectrogramTransform.preset(name)
    x = cases.noise(2, 4000)
    program = torch.export.export(module, (x,))
    assert not any("mps_spectro" in str(node.target) for node in program.graph.nodes)
    x = cases.noise(2, 4000, seed=1)
    assert cases.absolute(program.module()(x), module(x)) < 1e-4


def test_traced_by_jit_without_the_package() -> None:
    module = LogMelSpectrogramTransform(**SIZES, n_mels=40)
    x = cases.noise(2, 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (x,), check_trace=False)
    assert "mps_spectro::" not in str(traced.inlined_graph)
    assert cases.absolute(traced(x), module(x)) < 1e-5


def test_vmap_and_per_example_gradients() -> None:
    module = LogMelSpectrogramTransform(**SIZES, n_mels=40)
    x = cases.noise(3, 2, 4000)
    assert cases.absolute(torch.vmap(module)(x), module(x)) < 1e-5
    got = torch.vmap(torch.func.grad(lambda x: module(x).square().sum()))(x)
    leaf = x.clone().requires_grad_()
    module(leaf).square().sum().backward()
    assert cases.relative(got, leaf.grad) < 1e-5


def test_autocast_does_not_reach_inside(route: Route) -> None:
    module = LogMelSpectrogramTransform(**SIZES, n_mels=40).to(route.device)
    x = cases.noise(2, 4000).to(route.device)
    expected = module(x)
    with torch.autocast("cpu" if route.device == "cpu" else route.device, dtype=torch.bfloat16):
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
        ({"x": torch.zeros(200), "pad_mode": "reflect"}, ValueError, "at least 201 samples"),
        ({"x": torch.zeros(399), "center": False}, ValueError, "at least 400 samples"),
        ({"n_fft": 0}, ValueError, "n_fft must be positive"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"win_length": 0}, ValueError, "win_length must be in 1"),
        ({"win_length": 401}, ValueError, "win_length must be in 1"),
        ({"window": torch.ones(399)}, ValueError, "window must have shape"),
        ({"window": torch.ones(400, dtype=torch.int64)}, TypeError, "window must be real and floating point"),
        ({"window_fn": "sharp"}, ValueError, "window_fn must be a function or one of"),
        ({"window_fn": 3}, TypeError, "window_fn must be a function or a name"),
        ({"window_fn": lambda length: torch.ones(3)}, ValueError, "window_fn must give a tensor of shape"),
        ({"pad": -1}, ValueError, "pad must be at least 0"),
        ({"pad_mode": "mirror"}, ValueError, "pad_mode must be one of"),
        ({"center": 1}, TypeError, "center must be True or False"),
        ({"power": 0.0}, ValueError, "power must be positive"),
        ({"normalized": "energy"}, ValueError, "normalized must be False, True"),
        ({"norm": "area"}, ValueError, "norm must be None"),
        ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of"),
        ({"f_min": 9000.0}, ValueError, "f_min and f_max"),
        ({"n_mels": 0}, ValueError, "n_mels must be positive"),
        ({"output_scale": "loud"}, ValueError, "output_scale must be one of linear, log, db"),
        ({"log_mode": "root"}, ValueError, "log_mode must be one of clamp, add, log1p"),
        ({"log_amin": 0.0}, ValueError, "log_amin must be positive"),
        ({"log_scale": -1.0}, ValueError, "log_scale must be positive"),
        ({"top_db": -80.0}, ValueError, "top_db must be None or at least 0"),
        ({"mode": "packed"}, ValueError, "mode must be one of"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(4000), **SIZES, **change}
    with pytest.raises(error, match=words):
        mel_spectrogram(arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"padding": -1}, "padding must be None, 'same' or at least 0"),
        ({"center_tail_pad": "none"}, "center_tail_pad must be one of"),
        ({"center_tail_pad": "minimal", "pad_mode": "reflect"}, "must go with pad_mode='constant'"),
        ({"magnitude_eps": -1.0}, "magnitude_eps must be at least 0"),
        ({"log_base": 1.0}, "log_base must be above 1"),
        ({"dynamic_range": -1.0}, "dynamic_range must be None or at least 0"),
        ({"affine": (0.0, 1.0)}, "affine must be"),
        ({"affine": (2.0, 1.0), "output_scale": "linear"}, "affine must be"),
        ({"normalize": "all"}, "normalize must be None or 'per_feature'"),
    ],
    ids=cases.name,
)
def test_bad_arguments_of_the_module(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MelSpectrogramTransform(**{**SIZES, **change})


def test_log_mel_takes_no_other_scale() -> None:
    with pytest.raises(TypeError, match="takes no top_db"):
        LogMelSpectrogramTransform(**SIZES, top_db=3.0)
    with pytest.raises(ValueError, match="preset must be one of"):
        LogMelSpectrogramTransform.preset("mp3")


def test_constant_padding_takes_any_length() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mel_spectrogram(torch.ones(1), **SIZES, n_mels=40).shape == (40, 1)
