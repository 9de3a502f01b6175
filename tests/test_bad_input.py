"""Bad input: torch's own exceptions under the patch, an error that names argument and value in the direct call."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable

import pytest
import torch
from parity import torch_istft, torch_stft
from torch import Tensor

import mps_spectro
from mps_spectro.patch import patch_torch


def signal(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, 120).mul(50).sin()[: max(shape[-1], 1)].expand(*shape[:-1], -1)[..., : shape[-1]]


HANN = torch.hann_window(16)
SPECTRUM = torch.complex(torch.linspace(-1, 1, 2 * 9 * 12), torch.linspace(1, -2, 2 * 9 * 12)).view(2, 9, 12)


@dataclass
class Bad:
    """A call that torch refuses; `names` is what the message of the direct call must hold."""

    name: str
    function: str
    args: dict[str, Any]
    kind: type[Exception]
    names: tuple[str, ...]
    window: Tensor | None = field(default_factory=lambda: HANN)


def stft(name: str, kind: type[Exception], names: tuple[str, ...], **args: Any) -> Bad:
    window = args.pop("window", HANN)
    return Bad(name, "stft", {"input": signal(2, 100), "n_fft": 16, **args}, kind, names, window)


def istft(name: str, kind: type[Exception], names: tuple[str, ...], **args: Any) -> Bad:
    window = args.pop("window", HANN)
    return Bad(name, "istft", {"input": SPECTRUM, "n_fft": 16, **args}, kind, names, window)


BAD = [
    stft("shorter than the reflect pad", ValueError, ("input", "at least 9", "got 8"), input=signal(8)),
    stft("shorter, in a batch", ValueError, ("input", "at least 9", "got 3"), input=signal(2, 3)),
    stft("shorter than circular", ValueError, ("input", "at least 8", "got 7"), input=signal(7), pad_mode="circular"),
    stft("nothing to replicate", ValueError, ("input", "at least 1", "got 0"), input=signal(0), pad_mode="replicate"),
    stft("shorter than a frame", ValueError, ("input", "n_fft=16", "got 15"), input=signal(15), center=False),
    stft("empty batch", ValueError, ("input", "empty batch", "(0, 100)"), input=torch.ones(0, 100)),
    stft("no dimension", ValueError, ("input", "(..., T)"), input=torch.tensor(1.0)),
    stft("window too short", ValueError, ("window", "win_length=16", "(15,)"), window=torch.ones(15)),
    stft("window of n_fft with a smaller win_length", ValueError, ("window", "win_length=12", "(16,)"), win_length=12),
    stft("window in two dimensions", ValueError, ("window", "(16, 1)"), window=torch.ones(16, 1)),
    stft("window on another device", ValueError, ("window", "device", "meta"), window=HANN.to("meta")),
    stft("window is a list", TypeError, ("window", "list"), window=[1.0] * 16),
    stft("integers", TypeError, ("input", "int32"), input=torch.ones(100, dtype=torch.int32)),
    stft("booleans", TypeError, ("input", "bool"), input=torch.ones(100, dtype=torch.bool)),
    stft("a list", TypeError, ("input", "list"), input=[1.0] * 100),
    stft("sparse", TypeError, ("input", "sparse"), input=signal(2, 100).contiguous().to_sparse()),
    stft("one-sided of a complex signal", ValueError, ("onesided",), input=signal(100) * 1j, onesided=True),
    stft("one-sided with a complex window", ValueError, ("onesided",), window=HANN * 1j, onesided=True),
    stft("hop of 0", ValueError, ("hop_length", "0"), hop_length=0),
    stft("negative hop", ValueError, ("hop_length", "-4"), hop_length=-4),
    stft("default hop of n_fft 3", ValueError, ("hop_length", "n_fft=3"), n_fft=3, window=torch.ones(3)),
    stft("n_fft of 0", ValueError, ("n_fft", "0"), n_fft=0),
    stft("negative n_fft", ValueError, ("n_fft", "-16"), n_fft=-16),
    stft("n_fft of 10**7", ValueError, ("input", "n_fft=10000000", "got 100"), n_fft=10**7, window=None),
    stft("n_fft is a float", TypeError, ("n_fft", "16.0"), n_fft=16.0),
    stft("n_fft is a bool", TypeError, ("n_fft", "True"), n_fft=True, hop_length=1, window=torch.ones(1)),
    stft("hop is a string", TypeError, ("hop_length", "'4'"), hop_length="4"),
    stft("win_length of 0", ValueError, ("win_length", "0"), win_length=0),
    stft("win_length beyond n_fft", ValueError, ("win_length", "17"), win_length=17, window=torch.ones(17)),
    stft("unknown pad mode", ValueError, ("pad_mode", "'mirror'", "reflect"), pad_mode="mirror"),
    stft("aligned and centred", ValueError, ("align_to_window",), align_to_window=False),
    stft("normalized is a string", TypeError, ("normalized", "'yes'"), normalized="yes"),
    stft("return_complex is a string", TypeError, ("return_complex", "'no'"), return_complex="no"),
    istft("real spectrum", TypeError, ("input", "complex", "float32"), input=SPECTRUM.real),
    istft("pairs", TypeError, ("input", "complex"), input=torch.view_as_real(SPECTRUM)),
    istft("a list", TypeError, ("input", "list"), input=[1j]),
    istft("one dimension", ValueError, ("input", "(..., F, N)"), input=SPECTRUM[0, 0]),
    istft("empty batch", ValueError, ("input", "empty batch"), input=SPECTRUM[:0]),
    istft("no frames", ValueError, ("input", "frame", "(2, 9, 0)"), input=SPECTRUM[..., :0]),
    istft("no bins", ValueError, ("input", "bin", "(2, 0, 12)"), input=SPECTRUM[:, :0]),
    istft("bins of another n_fft", ValueError, ("input", "10 bins", "n_fft=18"), n_fft=18, window=torch.ones(18)),
    istft("two-sided of one-sided", ValueError, ("input", "16 bins", "got 9"), onesided=False),
    istft("one-sided of two-sided", ValueError, ("input", "9 bins", "got 12"), input=SPECTRUM.mT, onesided=True),
    istft("hop beyond the window", ValueError, ("hop_length", "win_length=16", "17"), hop_length=17),
    istft("hop of 0", ValueError, ("hop_length", "0"), hop_length=0),
    istft("win_length of 0", ValueError, ("win_length", "0"), win_length=0),
    istft("length of 0", ValueError, ("length", "0"), length=0),
    istft("negative length", ValueError, ("length", "-1"), length=-1),
    istft("length is a float", TypeError, ("length", "9.5"), length=9.5),
    istft("one frame, centred", ValueError, ("frame", "got 1"), input=SPECTRUM[..., :1]),
    istft("window too long", ValueError, ("window", "(17,)"), window=torch.ones(17)),
    istft("window on another device", ValueError, ("window", "device", "meta"), window=HANN.to("meta")),
    istft("complex window", ValueError, ("window", "real"), window=HANN * 1j),
    istft("complex signal of one-sided bins", ValueError, ("return_complex",), return_complex=True),
    istft("n_fft of 0", ValueError, ("n_fft", "0"), n_fft=0),
    istft("n_fft of 10**7", ValueError, ("input", "5000001 bins", "got 9"), n_fft=10**7, window=None),
    istft("no overlap", ValueError, ("window overlap add min",), center=False, torch_like=True),
]  # fmt: skip
OURS = [
    istft("unknown safety", ValueError, ("safety", "'never'", "auto, always, off"), safety="never"),
    istft("unknown kernel_dtype", ValueError, ("kernel_dtype", "'int8'", "float16"), kernel_dtype="int8"),
    istft("unknown kernel_layout", ValueError, ("kernel_layout", "'rows'", "native"), kernel_layout="rows"),
    istft("unknown strategy", ValueError, ("long_mode_strategy", "'x'", "custom"), long_mode_strategy="x"),
    istft("torch_like is an int", TypeError, ("torch_like", "1"), torch_like=1),
    istft("allow_fused is None", TypeError, ("allow_fused", "None"), allow_fused=None),
    istft("n_fft of one bin", ValueError, ("n_fft", "1 bin"), input=SPECTRUM[:, :1], n_fft=None),
]


def call(bad: Bad, function: Callable[..., Any], device: str) -> Any:
    args = {**bad.args, "window": bad.window}
    for name in ("input", "window"):
        if isinstance(args[name], Tensor) and args[name].device.type == "cpu":
            args[name] = args[name].to(device)
    return function(**args)


def on_this_device(bad: Bad, device: str) -> None:
    if device == "mps" and bad.name == "sparse":
        pytest.skip("sparse tensors need a newer MPS")


@pytest.mark.parametrize("bad", BAD + OURS, ids=lambda bad: f"{bad.function}: {bad.name}")
def test_direct_call(route: Any, bad: Bad) -> None:
    on_this_device(bad, route.device)
    with pytest.raises(bad.kind) as caught:
        call(bad, getattr(mps_spectro, bad.function), route.device)
    assert all(part in str(caught.value) for part in bad.names), str(caught.value)
    if bad.kind is ValueError:  # programs written for torch expect this type
        assert isinstance(caught.value, RuntimeError)


def native(bad: Bad) -> Bad:
    """The same for torch, which must be told return_complex and knows no options of ours."""
    args = {k: v for k, v in bad.args.items() if k != "torch_like"}
    if bad.function == "stft":
        args.setdefault("return_complex", True)
    return Bad(bad.name, bad.function, args, bad.kind, bad.names, bad.window)


def outcome(function: Callable[[], Any]) -> tuple[type, str]:
    try:
        return type(function()), ""
    except Exception as error:
        # ours hands every argument over by position
        return type(error), re.sub(r" \(position \d+\)", "", str(error))


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.function}: {bad.name}")
def test_patched_call(route: Any, bad: Bad) -> None:
    on_this_device(bad, route.device)
    bad = native(bad)
    function = torch_stft if bad.function == "stft" else torch_istft
    expected = outcome(lambda: call(bad, function, route.device))
    with patch_torch():
        got = outcome(lambda: call(bad, getattr(torch, bad.function), route.device))
    assert issubclass(expected[0], Exception), "torch takes this"
    assert got == expected


GOOD = {
    "hop beyond the frame": {"hop_length": 40},
    "constant padding of a short signal": {"input": signal(2, 3), "pad_mode": "constant"},
    "shortest reflected signal": {"input": signal(9)},
    "shortest circular signal": {"input": signal(8), "pad_mode": "circular"},
    "one replicated sample": {"input": signal(1), "pad_mode": "replicate"},
    "nothing but constant padding": {"input": signal(0), "pad_mode": "constant"},
    "one frame": {"input": signal(16), "center": False},
    "n_fft of 1": {"n_fft": 1, "hop_length": 1, "window": torch.ones(1)},
    "zeros in the window": {"window": torch.zeros(16)},
    "integers in the window": {"window": torch.ones(16, dtype=torch.int64)},
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_but_good(route: Any, name: str) -> None:
    """What looks like bad input and is none: all three agree."""
    args = {"input": signal(2, 100), "n_fft": 16, "window": HANN, **GOOD[name]}
    expected = torch_stft(**args, return_complex=True)
    there = {k: v.to(route.device) if isinstance(v, Tensor) else v for k, v in args.items()}
    with patch_torch():
        patched = torch.stft(**there, return_complex=True)
    for got in (patched, mps_spectro.stft(**there)):
        assert got.dtype == expected.dtype and got.shape == expected.shape and got.stride() == expected.stride()
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-5)
