"""The op `bands` (see _bands.py) in plain torch: any float dtype, any device, differentiable to any order."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _reference

MODES = ("linear", "clamp", "add", "log1p")


class BandsArguments(NamedTuple):
    """The arguments of the op behind its tensors."""

    n_fft: int
    hop_length: int
    offset: int
    pad_mode: str
    n_frames: int
    scale: float
    power: float
    eps: float
    eps_inside: bool
    mode: str
    factor: float
    floor: float

    @property
    def shape(self) -> tuple[int, int, int, str]:
        return self[:4]

    @property
    def linear(self) -> BandsArguments:
        return self._replace(mode="linear", factor=1.0, floor=0.0)


def safe_power(q: Tensor, exponent: float) -> Tensor:
    """q ** exponent, whose derivatives at 0 are 0 to any order."""
    zero = q == 0
    q = q.masked_fill(zero, 1.0)
    if abs(exponent) == 0.5:
        out = q.sqrt() if exponent > 0 else q.rsqrt()
    else:
        out = q.pow(exponent)
    return out.masked_fill(zero, 0.0)


def squares(spec: Tensor, rest: BandsArguments) -> Tensor:
    q = spec.square().sum(-1)
    return q + rest.eps if rest.eps_inside and rest.eps else q


def scaled(m: Tensor, rest: BandsArguments) -> Tensor:
    if rest.mode == "linear":
        return m
    if rest.mode == "clamp":
        return rest.factor * m.clamp(min=rest.floor).log()
    return rest.factor * ((m + rest.floor).log() if rest.mode == "add" else (rest.floor * m).log1p())


def project(s: Tensor, basis: Tensor | None) -> Tensor:
    """(B, bins, F) to (B, n_bands, F), in memory (B, F, n_bands)."""
    return s if basis is None else torch.matmul(s.transpose(1, 2), basis.t()).transpose(1, 2)


def of_squares(q: Tensor, basis: Tensor | None, rest: BandsArguments) -> Tensor:
    """Scaled bands (B, n_bands, F) of `squares` (B, bins, F)."""
    s = q if rest.power == 2 else safe_power(q, 0.5 * rest.power)
    if not rest.eps_inside and rest.eps:
        s = s + rest.eps
    return scaled(project(s, basis), rest)


def reference(x: Tensor, window: Tensor, basis: Tensor | None, *arguments: Any) -> Tensor:
    """The op in torch functions: any float dtype, any device, differentiable in either mode."""
    rest = BandsArguments(*arguments)
    dtype = x.dtype
    x, window = _reference._computable(x), _reference._computable(window)
    spec = _reference.analysis(x, window, None, *rest.shape, rest.n_frames, rest.scale, False)
    out = of_squares(squares(spec, rest), None if basis is None else _reference._computable(basis), rest)
    rows = out.to(dtype).transpose(1, 2).contiguous()
    # through one dimension, so that dimensions of size 1 have regular strides too
    return rows.flatten().view(rows.shape).transpose(1, 2)


def exportable(
    x: Tensor, window: Tensor, basis: Tensor | None, right: int, drop_last_frame: bool, *arguments: Any
) -> Tensor:
    """The op in as few torch functions as it takes, for graphs that must run without this package.

    Args:
        right: samples of padding behind the signal.
    """
    rest = BandsArguments(*arguments)
    x = F.pad(x.unsqueeze(1), (rest.offset, right), mode=rest.pad_mode).squeeze(1)
    rows = x.unfold(1, rest.n_fft, rest.hop_length) * (window * rest.scale)
    q = torch.fft.rfft(rows, dim=2).abs().square().transpose(1, 2)
    out = of_squares(q + rest.eps if rest.eps_inside else q, basis, rest)
    return out[..., :-1] if drop_last_frame else out
