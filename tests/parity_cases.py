"""The parity grid: which transforms are compared with torch in float64, and how their errors are measured.

Shared by tests/test_parity.py and scripts/parity.py. Needs torch and mps_spectro only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import mps_spectro

# torch's own functions, whatever is patched
torch_stft = torch.functional.stft
torch_istft = torch.functional.istft

FORWARD = 5e-7
GRADIENT = 2e-6
# A result may be off by twice as much as torch's own in float32. The largest of many errors is a matter of luck: where
# torch does better than a few roundings (one of the largest value is 6e-8), by this. MPS has no float64, so istft's
# envelope is rounded there at every step of its making; on CUDA what no kernel covers is up to torch's FFT library.
TWICE = 2.0
FLOORS = {"cpu": 3e-7, "cuda": 4e-7, "mps": 4e-7}

SMALL = tuple(range(1, 131))
COMMON = (200, 320, 321, 400, 501, 512, 640, 960, 1024, 1218, 1280, 1367, 1920, 2048, 4096, 6144, 7680, 8192, 16384)
# every size class of every kind of plan that those leave out
RARE = (131, 262, 289, 577, 578, 1149, 2187, 2311, 3003, 4091, 4095, 4622, 6006, 8186)
LENGTHS = (65535, 65536, 65537, 95520, 131073)
PAD_MODES = ("reflect", "constant", "replicate", "circular")
# one size for every kind of plan: see _plan.py, and the test that this is complete
KINDS = {
    "one sample": 1,
    "two samples": 2,
    "one pass": 16,
    "radix in a simdgroup": 320,
    "mirrored by tens in a simdgroup": 400,
    "radix": 1280,
    "radix, full memory": 7680,
    "mirrored in a simdgroup": 1024,
    "mirrored": 2048,
    "mirrored, full memory": 8192,
    "mixed in a simdgroup": 1000,
    "mixed, prime 17 in a simdgroup": 340,
    "mixed": 1320,
    "mixed pair": 105,
    "mixed, prime 29": 1218,
    "mixed pair, prime 107": 321,
    "mixed in place": 6006,
    "mixed pair in place": 3003,
    "chirp in a simdgroup": 262,
    "chirp": 514,
    "chirp, full memory": 2062,
    "chirp, split": 8186,
    "chirp pair in a simdgroup": 131,
    "chirp pair": 263,
    "chirp pair, full memory": 1149,
    "chirp pair, split": 4091,
    "torch": 16384,
}


@dataclass(frozen=True)
class Case:
    """One stft, the istft of its spectrum, and their gradients."""

    n_fft: int
    hop_length: int
    length: int
    batch: int = 3
    win_length: int | None = None
    center: bool = True
    pad_mode: str = "reflect"
    normalized: bool = False
    windows: bool = False  # gradients of the window too
    bins_major: bool = False  # spectra contiguous, not in the layout that stft returns

    def __str__(self) -> str:
        words = [f"n_fft={self.n_fft} hop={self.hop_length} T={self.length} B={self.batch}"]
        words += [f"win={self.win_length}"] if self.win_length else []
        words += [self.pad_mode if self.center else "center=False"]
        words += ["normalized"] if self.normalized else []
        words += ["bins-major"] if self.bins_major else []
        return " ".join(words)

    @property
    def invertible(self) -> bool:
        """Whether torch.istft takes the spectrum: a short window that is not centred leaves the first samples out."""
        return self.hop_length <= (self.win_length or self.n_fft) and (self.center or self.win_length is None)

    @property
    def by_kernel(self) -> bool:
        """Whether kernels cover this n_fft; plain torch answers the others on every backend."""
        return self.n_fft <= (4096 if self.n_fft % 2 else 8192)

    def window(self) -> Tensor:
        """Hann, but raised where its ends would stand alone: istft divides by what the frames add up to."""
        size = self.win_length or self.n_fft
        window = torch.hann_window(size)
        return window if self.center and 2 * self.hop_length <= size else window * 0.5 + 0.5

    def arguments(self) -> dict[str, Any]:
        names = ("n_fft", "hop_length", "win_length", "center", "normalized")
        return {name: getattr(self, name) for name in names}

    def samples(self, frames: int) -> int:
        """What istft is asked for: the whole signal where enough frames reach its end, else up to the last frame."""
        if self.center and 4 * self.hop_length <= (self.win_length or self.n_fft):
            return self.length
        return min(self.length, self.hop_length * (frames - 1) + (self.n_fft % 2 if self.center else self.n_fft))

    def spectrum_like(self, spectrum: Tensor) -> Tensor:
        return spectrum.contiguous() if self.bins_major else spectrum.mT.contiguous().mT


@dataclass(frozen=True)
class Error:
    """Largest error over the largest value of the float64 result: of our float32 and of torch's on the CPU."""

    ours: float
    torch: float

    def allowed(self, device: str) -> float:
        """What a forward result on this device may be off by."""
        return min(FORWARD, max(TWICE * self.torch, FLOORS[device]))


def hop_of(n_fft: int) -> int:
    return max(1, n_fft // 4)


def basic(n_fft: int) -> list[Case]:
    """What every size goes through: some frames, and the shortest signal that reflects."""
    hop = hop_of(n_fft)
    return [
        Case(n_fft, hop, 5 * n_fft + 3 * hop // 2, windows=n_fft % 4 == 0),
        Case(n_fft, hop, n_fft // 2 + 1, batch=16, bins_major=n_fft % 3 == 0),
    ]


def modes(n_fft: int) -> list[Case]:
    """Each argument away from its default."""
    hop = hop_of(n_fft)
    usual = Case(n_fft, hop, 4 * n_fft + 3)
    cases = [
        replace(usual, pad_mode=mode, length=4 * n_fft + i, bins_major=i % 2 == 1)
        for i, mode in enumerate(PAD_MODES[1:])
    ]
    cases += [
        replace(usual, hop_length=max(1, n_fft // 3) | 1, batch=1),
        replace(usual, hop_length=max(1, n_fft // 2), bins_major=True),
        replace(usual, hop_length=n_fft + 3, length=6 * n_fft + 20, windows=True),
        replace(usual, center=False, windows=True),
        replace(usual, normalized=True, hop_length=max(1, n_fft // 5)),
    ]
    if n_fft <= 130:
        cases.append(Case(n_fft, 1, n_fft + 9, batch=2, center=n_fft < 20))
    if n_fft > 4:
        win = n_fft - n_fft // 4 - 1
        short = max(1, win // 4)
        cases += [
            replace(usual, win_length=win, hop_length=short, windows=True),
            replace(usual, win_length=win, hop_length=short, center=False, bins_major=True),
        ]
    return cases


def long(n_fft: int) -> list[Case]:
    """Lengths around the limits of 16-bit grids."""
    return [Case(n_fft, hop_of(n_fft), length, batch=1 + i % 2) for i, length in enumerate(LENGTHS)]


def many(n_fft: int) -> list[Case]:
    """More rows than a grid of 16 bits has."""
    return [
        Case(n_fft, max(1, n_fft // 2), n_fft + n_fft // 2, batch=70000),
        Case(n_fft, n_fft, n_fft + 1, batch=70000, pad_mode="constant"),
    ]


def full_grid() -> Iterator[Case]:
    for n_fft in SMALL + COMMON + RARE:
        yield from basic(n_fft)
        yield from modes(n_fft)
    for n_fft in sorted({1, 2, 7, 64, *KINDS.values(), *COMMON}):
        yield from long(n_fft)
    for n_fft in (1, 5, 8, 16, 20, 31, 64):
        yield from many(n_fft)


def quick_grid() -> Iterator[Case]:
    for n_fft in SMALL + COMMON + RARE:
        yield from basic(n_fft)
    for number, n_fft in enumerate(KINDS.values()):
        yield from modes(n_fft)[number % 2 :: 2]
    for n_fft in (16, 400, 1024):
        yield from long(n_fft)
    yield from many(16)


def largest_error(got: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value; shapes must agree."""
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    assert expected.numel() > 0
    largest = expected.abs().max().item()
    difference = (got.detach().cpu().to(expected.dtype) - expected).abs().max().item()
    return difference / largest if largest else difference


def _run(function: Any, first: Tensor, window: Tensor, weights: Tensor, windows: bool, **kwargs: Any) -> list[Tensor]:
    """The result and its gradients with respect to the first argument and, if asked for, the window."""
    first = first.detach().requires_grad_()
    window = window.detach().requires_grad_(windows)
    out = function(first, window=window, **kwargs)
    inputs = [first, window] if windows else [first]
    gradients = torch.autograd.grad(out, inputs, weights.to(out.device, out.dtype))
    return [out.detach(), *(gradient.detach() for gradient in gradients)]


@dataclass(frozen=True)
class Comparison:
    """One function of one case: its arguments, the float64 results and torch's own errors in float32."""

    name: str
    function: Any
    first: Tensor
    window: Tensor
    weights: Tensor
    windows: bool
    arguments: dict[str, Any]
    exact: list[Tensor]
    native: list[float]

    def errors(self, device: str) -> dict[str, Error]:
        names = [self.name, f"gradient of {self.name}", f"gradient of {self.name}, window"]
        first, window = self.first.to(device), self.window.to(device)
        got = _run(self.function, first, window, self.weights, self.windows, **self.arguments)
        errors = [largest_error(mine, expected) for mine, expected in zip(got, self.exact)]
        return {name: Error(ours, native) for name, ours, native in zip(names, errors, self.native)}


def _comparison(
    function: Any, theirs: Any, first: Tensor, window: Tensor, weights: Tensor, windows: bool, arguments: dict[str, Any]
) -> Comparison:
    double = torch.complex128 if first.is_complex() else torch.float64
    exact = _run(theirs, first.to(double), window.double(), weights, windows, **arguments)
    single = _run(theirs, first, window, weights, windows, **arguments)
    native = [largest_error(got, expected) for got, expected in zip(single, exact)]
    return Comparison(theirs.__name__, function, first, window, weights, windows, arguments, exact, native)


# kept while the routes take their turns at a case
@functools.lru_cache(maxsize=6)
def comparisons(case: Case) -> list[Comparison]:
    """What `case` compares. Inputs depend on the case alone."""
    generator = torch.Generator().manual_seed(case.n_fft * 131 + case.hop_length)
    window, arguments = case.window(), case.arguments()
    forward = {**arguments, "pad_mode": case.pad_mode, "return_complex": True}
    signal = torch.randn(case.batch, case.length, generator=generator)
    with torch.no_grad():
        spectrum = torch_stft(signal.double(), window=window.double(), **forward).to(torch.complex64)
    weights = case.spectrum_like(torch.randn(spectrum.shape, dtype=torch.complex64, generator=generator))
    found = [_comparison(mps_spectro.stft, torch_stft, signal, window, weights, case.windows, forward)]
    length = case.samples(spectrum.shape[-1])
    if case.invertible and length > 0:
        spectrum = case.spectrum_like(spectrum)
        weights = torch.randn(case.batch, length, generator=generator)
        inverse = {**arguments, "length": length}
        found += [_comparison(mps_spectro.istft, torch_istft, spectrum, window, weights, case.windows, inverse)]
    return found


def measure(case: Case, device: str) -> dict[str, Error]:
    """Errors by quantity: "stft", "istft" and what "gradient of" them.

    The package runs on `device`, by whatever backend is chosen; everything it is compared with runs on the CPU.
    """
    errors: dict[str, Error] = {}
    for comparison in comparisons(case):
        errors |= comparison.errors(device)
    return errors


def violations(case: Case, device: str) -> list[str]:
    """The errors of `measure` beyond their limits, in words."""
    return beyond_limits(case, device, measure(case, device))


def beyond_limits(case: Case, device: str, errors: dict[str, Error]) -> list[str]:
    """Those of `errors` beyond their limits, in words."""
    found = []
    for quantity, error in errors.items():
        bound = GRADIENT if quantity.startswith("gradient") else error.allowed(device)
        if not error.ours <= bound:  # NaN is no pass
            found.append(f"{case}: {quantity} {error.ours:.2e}, allowed {bound:.2e}, torch {error.torch:.2e}")
    return found
