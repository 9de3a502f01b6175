"""Transforms: the three that are compared, and the work they do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..istft import istft
from ..stft import stft
from .cases import Case
from .comparison import Comparison, Results, Work, differentiated, largest_error, noise, random

CONTENDERS = ("torch", "framed", "ours")


@dataclass(frozen=True)
class Inputs:
    """What all contenders get. `spectrum` and the gradients are there where the work needs them."""

    signal: Tensor
    window: Tensor
    spectrum: Tensor | None
    grad_signal: Tensor | None
    grad_spectrum: Tensor | None


def make_inputs(case: Case, device: torch.device, signal: Tensor | None = None) -> Inputs:
    """Noise (or the recording), a periodic Hann window, and gradients in the layout of what they are gradients of."""
    if signal is None:
        signal = noise(case, device)
    window = torch.hann_window(case.n_fft, device=device)
    spectrum = grad_signal = grad_spectrum = None
    if case.work.startswith("istft") or case.work == "stft-backward":
        transform = torch.stft(signal, case.n_fft, case.hop, window=window, return_complex=True)
        if case.work == "stft-backward":
            grad_spectrum = transform
        else:
            spectrum = transform.contiguous() if case.layout == "bins" else transform
    if case.work.endswith("backward") and case.work != "stft-backward":
        samples = (case.frames - 1) * case.hop + case.n_fft % 2
        grad_signal = random((case.batch, samples), device)
    return Inputs(signal, window, spectrum, grad_signal, grad_spectrum)


def _beginning(case: Case, inputs: Inputs, device: torch.device) -> tuple[Inputs, int, int]:
    """The beginning of the first row in float64, and how many samples and frames of a result are the full one's."""
    length = min(case.length, max(40 * case.n_fft, 2 * case.hop + 40 * case.n_fft))
    frames = 1 + (length + 2 * (case.n_fft // 2) - case.n_fft) // case.hop
    whole = length == case.length

    def head(tensor: Tensor | None, count: int) -> Tensor | None:
        if tensor is None:
            return None
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        return tensor[:1, ..., :count].to(device).to(wide)

    samples = (frames - 1) * case.hop + case.n_fft % 2
    signal = head(inputs.signal, length)
    window = inputs.window.to(device).double()
    assert signal is not None
    spectrum, grad_spectrum = head(inputs.spectrum, frames), head(inputs.grad_spectrum, frames)
    reduced = Inputs(signal, window, spectrum, head(inputs.grad_signal, samples), grad_spectrum)
    # near the cut, frames lack samples, samples lack frames, and gradients lack both
    margin = 0 if whole else 4 * case.n_fft
    return reduced, samples - margin, frames - -(-margin // case.hop)


def work_of(contender: str, case: Case, inputs: Inputs) -> Work:
    """One call of the case's work; results are the output and, for backward, the gradient."""
    forward, inverse = _TRANSFORMS[contender](case.n_fft, case.hop, inputs.window)
    signal, spectrum = inputs.signal, inputs.spectrum
    if case.work == "stft":
        return lambda: (forward(signal),)
    if case.work == "istft":
        return lambda: (inverse(spectrum),)
    if case.work == "stft-backward":
        return differentiated(forward, signal, inputs.grad_spectrum)
    if case.work == "istft-backward":
        assert spectrum is not None
        return differentiated(inverse, spectrum, inputs.grad_signal)
    return differentiated(lambda x: inverse(forward(x)), signal, inputs.grad_signal)


# --- torch and ours --------------------------------------------------------------------------------------------------

_Transforms = tuple[Callable[[Tensor], Tensor], Callable[[Any], Tensor]]


def _torch(n_fft: int, hop: int, window: Tensor) -> _Transforms:
    return (
        lambda x: torch.stft(x, n_fft, hop, window=window, return_complex=True),
        lambda spectrum: torch.istft(spectrum, n_fft, hop, window=window),
    )


def _ours(n_fft: int, hop: int, window: Tensor) -> _Transforms:
    return (
        lambda x: stft(x, n_fft, hop, window=window),
        lambda spectrum: istft(spectrum, n_fft, hop, window=window),
    )


# --- a framed baseline: windowed frames in memory, the library's FFT, overlap-add ------------------------------------


class _Frames(torch.autograd.Function):
    """(B, T) -> (B, frames, n_fft), windowed and in memory; backward adds the frames up again."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, window: Tensor, hop: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.shape = (padded.shape[-1], hop)
        return padded.unfold(-1, window.shape[0], hop) * window

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (window,) = ctx.saved_tensors
        length, hop = ctx.shape
        return _overlap_add(grad * window, hop, length), None, None


class _Sum(torch.autograd.Function):
    """(B, frames, n_fft) -> (B, T): windows and adds the frames up; backward cuts frames."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, window: Tensor, hop: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.hop = hop
        return _overlap_add(frames * window, hop, (frames.shape[1] - 1) * hop + frames.shape[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (window,) = ctx.saved_tensors
        return grad.unfold(-1, window.shape[0], ctx.hop) * window, None, None


def _overlap_add(frames: Tensor, hop: int, length: int) -> Tensor:
    batch, count, n_fft = frames.shape
    covered = (count - 1) * hop + n_fft
    out = F.fold(frames.transpose(1, 2), (1, covered), (1, n_fft), stride=(1, hop)).view(batch, covered)
    return out if covered == length else F.pad(out, (0, length - covered))


def _framed(n_fft: int, hop: int, window: Tensor) -> _Transforms:
    half = n_fft // 2
    envelopes: dict[int, Tensor] = {}

    def forward(x: Tensor) -> Tensor:
        padded = F.pad(x.unsqueeze(0), (half, half), mode="reflect").squeeze(0)
        return torch.fft.rfft(_Frames.apply(padded, window, hop)).transpose(1, 2)

    def inverse(spectrum: Tensor) -> Tensor:
        count = spectrum.shape[-1]
        if count not in envelopes:
            envelopes[count] = _overlap_add(window.square().expand(1, count, n_fft), hop, (count - 1) * hop + n_fft)
        frames = torch.fft.irfft(spectrum.transpose(1, 2), n_fft)
        end = (count - 1) * hop + n_fft - half
        return _Sum.apply(frames, window, hop)[:, half:end] / envelopes[count][:, half:end]

    return forward, inverse


_TRANSFORMS: dict[str, Callable[[int, int, Tensor], _Transforms]] = {"torch": _torch, "framed": _framed, "ours": _ours}


class Reference:
    """The case's work in float64 over the beginning of its first row."""

    def __init__(self, case: Case, inputs: Inputs, device: torch.device) -> None:
        reduced, self._samples, self._frames = _beginning(case, inputs, device)
        self._results = work_of("torch", case, reduced)()

    def error(self, results: Results) -> float:
        """The largest difference, relative to the largest value; of outputs and gradients, the worse one."""
        counts = [self._frames if result.dim() == 3 else self._samples for result in results]
        got = tuple(result[..., :count] for result, count in zip(results, counts))
        return largest_error(got, tuple(exact[..., :count] for exact, count in zip(self._results, counts)))


def compare(case: Case, device: torch.device, signal: Tensor | None) -> Comparison:
    """A row of transforms, of noise or of a recording."""
    inputs = make_inputs(case, device, signal)
    return Comparison(
        {name: partial(work_of, name, case, inputs) for name in CONTENDERS},
        lambda where: Reference(case, inputs, where).error,
    )
