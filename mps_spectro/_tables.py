"""Twiddle factors and chirps, computed in float64 on the host, one float32 table per plan and device."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ._cache import BoundedCache
from ._plan import PRIME_TILE, Plan

_cache: BoundedCache[Table] = BoundedCache("tables", 64)


class Table(NamedTuple):
    """`values` (n, 2) float32: pass twiddles | untangling factors | chirp, or roots of a prime | chirp's spectrum."""

    values: torch.Tensor
    untangle_at: int
    chirp_at: int
    spectrum_at: int


def _unit(numerator: torch.Tensor, denominator: int) -> torch.Tensor:
    """exp(-2 pi i numerator / denominator), the angle reduced in integers first."""
    angle = (numerator % denominator).to(torch.float64) * (-2.0 * math.pi / denominator)
    return torch.complex(angle.cos(), angle.sin())


def _pass_twiddles(radices: tuple[int, ...]) -> list[torch.Tensor]:
    parts = []
    done = 1
    for number, radix in enumerate(radices):
        if number > 0:
            parts.append(_unit(torch.outer(torch.arange(1, radix), torch.arange(done)).flatten(), done * radix))
        done *= radix
    return parts


def _build(plan: Plan) -> Table:
    parts = _pass_twiddles(plan.radices)
    untangle_at = sum(map(len, parts))
    if not plan.pair:
        bins = plan.threads if plan.mirrored else plan.points + 1
        parts.append(_unit(torch.arange(bins), plan.n_fft))
    chirp_at = sum(map(len, parts))
    spectrum_at = chirp_at
    if plan.prime:
        half = plan.prime // 2
        columns = -(-half // PRIME_TILE) * PRIME_TILE
        parts.append(_unit(torch.outer(torch.arange(1, half + 1), torch.arange(1, columns + 1)).flatten(), plan.prime))
    if plan.kind == "bluestein":
        n = torch.arange(plan.points)
        chirp = _unit(n * n, 2 * plan.points)
        parts.append(chirp)
        spectrum_at = chirp_at + plan.points
        kernel = torch.zeros(plan.fft_points, dtype=torch.complex128)
        kernel[: plan.points] = chirp.conj()
        kernel[plan.fft_points - plan.points + 1 :] = chirp[1:].conj().flip(0)
        parts.append(torch.fft.fft(kernel) / plan.fft_points)
    joined = torch.cat(parts) if parts else torch.ones(1, dtype=torch.complex128)
    values = torch.view_as_real(joined).to(torch.float32).contiguous()
    return Table(values, untangle_at, chirp_at, spectrum_at)


def table_for(plan: Plan, device: torch.device) -> Table:
    """The table of `plan` on `device`, made once."""

    def build() -> Table:
        with torch.inference_mode(False), torch.no_grad():
            table = _build(plan)
            return table._replace(values=table.values.to(device))

    return _cache.get((plan, device), build)
