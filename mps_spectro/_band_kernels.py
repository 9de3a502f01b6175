"""Launches the kernels that end in powers of bins: `bands` and, for its gradient, `gains`."""

from __future__ import annotations

from typing import Any

import torch

from . import _kernels
from ._bands_reference import BandsArguments
from ._banks import DENSEST, bank_columns, sparse_bank
from ._kernels import Launch
from ._plan import make_plan

_SCALES = {"linear": 0, "clamp": 1, "add": 2, "log1p": 3}


def _bind(
    backend: str,
    name: str,
    device: torch.device,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    pairs: bool,
    n_bands: int,
    projected: bool,
    width: int,
    rest: BandsArguments,
) -> Launch:
    # sizes that share kernels share this too, or a sweep would compile each of them twice
    pairs = pairs and not _kernels._run_time_sizes.get()
    direct = _kernels._direct(shape, strides, pairs, rest.n_fft, rest.hop_length, rest.offset)
    power = int(rest.power) if rest.power in (1.0, 2.0) else 0
    variant = (("ALIGNED", int(direct)), ("POWER", power), ("SCALE", _SCALES[rest.mode]))
    plan, table, kernel, _ = _kernels._prepare(backend, name, rest.n_fft, device, variant)
    ending = (n_bands, int(projected), width, 0)
    integers = _kernels._frames_arguments(plan, table, shape, strides, None, *rest.shape, rest.n_frames, ending)
    epsilons = (rest.eps, 0.0) if rest.eps_inside else (0.0, rest.eps)
    half = 0.5 * rest.scale  # untangling sums two terms where the mean is meant
    floats = (half, half, rest.power, epsilons[0], rest.factor, rest.floor, epsilons[1])
    return Launch(_kernels._bind(kernel, integers, floats, -(-integers[0] // plan.slots), plan.group), table.values)


def _fits(n_fft: int, n_bands: int) -> bool:
    """Whether the bands of a frame find a place behind its powers, for `gains`."""
    plan = make_plan(n_fft, "gains", _kernels._run_time_sizes.get())
    frames = plan.frames_per_unit
    powers = 2 * (plan.points // 2 + 1) if plan.pair else plan.points + 1
    return powers + frames * (n_bands + n_bands % 2) <= 2 * plan.slot_stride


def _launch(backend: str, name: str, x: torch.Tensor, window: torch.Tensor, *rest: Any) -> Launch:
    pairs = _kernels.aligned(x, window)
    key = (backend, name, x.device, tuple(x.shape), x.stride(), pairs, *rest)
    return _kernels._launches.get((_kernels._run_time_sizes.get(), *key), lambda: _bind(*key))


def bands(
    backend: str, x: torch.Tensor, window: torch.Tensor, basis: torch.Tensor | None, *arguments: Any
) -> torch.Tensor | None:
    """The op `bands` (see _bands.py) by its kernel, or None for a basis that is too dense to be summed there."""
    rest = BandsArguments(*arguments)
    bank = None if basis is None else sparse_bank(basis)
    if basis is not None and bank is None:
        return None
    n_bands = rest.n_fft // 2 + 1 if basis is None else basis.shape[0]
    out = x.new_empty((x.shape[0], rest.n_frames, n_bands)).transpose(1, 2)
    if out.numel() == 0:
        return out
    launch = _launch(backend, "bands", x, window, n_bands, bank is not None, 0, rest)
    launch.run(x, window, launch.table, *((window, window) if bank is None else bank), out)
    return out


def gains(
    backend: str,
    x: torch.Tensor,
    window: torch.Tensor,
    basis: torch.Tensor | None,
    grad: torch.Tensor,
    *arguments: Any,
) -> torch.Tensor | None:
    """The spectrum (B, n_bins, n_frames, 2) of x, each bin times what it takes from `grad`, the gradient of `bands`.

    Synthesis of it is the gradient of the signal. None where no kernel covers the basis.
    """
    rest = BandsArguments(*arguments)
    n_bins = rest.n_fft // 2 + 1
    out = x.new_empty((x.shape[0], rest.n_frames, n_bins, 2)).transpose(1, 2)
    if out.numel() == 0:
        return out
    if basis is None:
        launch = _launch(backend, "gains", x, window, n_bins, False, 0, rest)
        tables: tuple[torch.Tensor, ...] = (window,) * 4
    elif basis.shape[0] == 0 or not _fits(rest.n_fft, basis.shape[0]):
        return None
    else:
        bank, by_bins = sparse_bank(basis), bank_columns(basis)
        if bank is None or by_bins.width > DENSEST:
            return None
        launch = _launch(backend, "gains", x, window, basis.shape[0], True, by_bins.width, rest)
        tables = (*bank, *by_bins)
    rows = grad.transpose(1, 2).contiguous()
    launch.run(x, window, launch.table, *tables, rows, out)
    return out
