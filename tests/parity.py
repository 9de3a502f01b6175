"""Cases, references and layouts shared by the parity tests: everything is compared with torch in float64 on the CPU."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# torch's own functions, whatever a test patches
torch_stft = torch.functional.stft
torch_istft = torch.functional.istft

FORWARD = 5e-7
GRADIENT = 2e-6
SIZES = (1, 2, 3, 5, 7, 8, 12, 16, 20, 25, 31, 64, 100, 127, 321, 400, 512, 1024, 1218)
PAD_MODES = ("reflect", "constant", "replicate", "circular")


@dataclass(frozen=True)
class Case:
    """Arguments of one stft; `length` is that of the signal."""

    n_fft: int
    hop_length: int
    win_length: int
    center: bool
    pad_mode: str
    normalized: bool
    onesided: bool
    length: int
    batch: int | None

    @property
    def stft(self) -> dict[str, Any]:
        return {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "win_length": self.win_length,
            "center": self.center,
            "pad_mode": self.pad_mode,
            "normalized": self.normalized,
            "onesided": self.onesided,
        }

    @property
    def istft(self) -> dict[str, Any]:
        return {key: value for key, value in self.stft.items() if key != "pad_mode"}

    def signal(self) -> Tensor:
        shape = (self.length,) if self.batch is None else (self.batch, self.length)
        return torch.randn(shape)

    def window(self) -> Tensor:
        """Asymmetric and nowhere near zero, so that a shifted or mirrored window shows and every envelope is sound."""
        return torch.rand(self.win_length) * 0.5 + torch.linspace(0.4, 1.0, self.win_length)

    def spectrum(self) -> Tensor:
        """What istft may get back: as many bins and frames as stft gives, no symmetry in it."""
        padded = self.length + (2 * (self.n_fft // 2) if self.center else 0)
        frames = 1 + (padded - self.n_fft) // self.hop_length
        bins = self.n_fft // 2 + 1 if self.onesided else self.n_fft
        shape = (bins, frames) if self.batch is None else (self.batch, bins, frames)
        return torch.randn(shape, dtype=torch.complex64)

    def __str__(self) -> str:
        flags = [name for name in ("center", "normalized", "onesided") if getattr(self, name)]
        return "-".join(
            str(part)
            for part in (
                self.n_fft, self.hop_length, self.win_length, self.pad_mode, *flags, f"T{self.length}", f"B{self.batch}"
            )
        )  # fmt: skip


def cases(count: int, seed: int = 0) -> list[Case]:
    """`count` cases over all sizes; the same ones for the same seed."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        n_fft = SIZES[i % len(SIZES)]
        hop = rng.choice(
            [
                1 if n_fft <= 64 else n_fft // 16,
                n_fft // 8,
                n_fft // 4,
                n_fft // 4,
                n_fft // 3,
                n_fft // 2,
                n_fft,
                n_fft + 3,
            ]
        )
        hop = max(1, hop)
        frames = rng.choice([1, 2, 3, 5, 8, 13])
        found.append(
            Case(
                n_fft=n_fft,
                hop_length=hop,
                win_length=rng.choice([n_fft, n_fft, max(1, n_fft - 1), n_fft // 2 + 1]),
                center=rng.random() < 0.7,
                pad_mode=rng.choice(PAD_MODES),
                normalized=rng.random() < 0.3,
                onesided=rng.random() < 0.8,
                # every remainder of T by the hop, and signals as short as the padding allows
                length=max(n_fft, n_fft // 2 + 1) + hop * (frames - 1) + rng.choice([0, 0, 1, hop - 1, hop // 2]),
                batch=rng.choice([None, 1, 3]),
            )
        )
    return found


def shortest(case: Case) -> Case:
    """The same with the shortest signal that the padding takes."""
    return replace(case, center=True, length=case.n_fft // 2 + 1)


def error(got: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value; shapes must agree."""
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    if expected.numel() == 0:
        return 0.0
    largest = expected.abs().max().item()
    wide = torch.complex128 if got.is_complex() else torch.float64
    difference = (got.detach().cpu().resolve_conj().to(wide) - expected.detach().cpu()).abs().max().item()
    return difference / largest if largest else difference


def strides(tensor: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one entry; torch leaves those of the others to chance."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1]


def wide(tensor: Tensor) -> Tensor:
    """The tensor in double precision on the CPU."""
    return tensor.detach().cpu().to(torch.complex128 if tensor.is_complex() else torch.float64)


LAYOUTS = ("contiguous", "offset", "every second", "channel", "transposed", "expanded", "reversed batch")


def laid_out(values: Tensor, layout: str, device: str) -> Tensor:
    """`values` (2-D or 3-D) at this layout in memory, with NaN before, between and after."""
    shape, lead = values.shape, values.shape[:-1]
    length = shape[-1]

    def nans(*sizes: int) -> Tensor:
        return torch.full(sizes, float("nan"), dtype=values.dtype, device=device)

    if layout == "offset":
        view = nans(values.numel() + 14)[7:-7].view(shape)
    elif layout == "every second":
        view = nans(*lead, 2 * length + 4)[..., 3 : 3 + 2 * length : 2]
    elif layout == "channel":
        view = nans(*lead, 3, length).select(-2, 1)
    elif layout == "transposed":
        view = nans(length, *lead).movedim(0, -1)
    elif layout == "expanded":
        one = nans(values[0].numel() + 10)[5:-5].view(shape[1:])
        return one.copy_(values[0]).expand(shape)
    elif layout == "reversed batch":
        view = nans(shape[-1], *lead[::-1]).permute(*range(values.dim() - 1, -1, -1))
    else:
        view = nans(*shape)
    view.copy_(values)
    return view
