"""Launches the two kernels: arguments of shaders/stft.metal and shaders/istft.metal from those of the ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ._cache import BoundedCache
from ._plan import Plan, make_plan, segments, supported
from ._runtime import library
from ._tables import Table, table_for

_PAD_MODES = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}
_INT32_MAX = 2**31 - 1
_MULTIPROCESSORS = {"metal": 20, "host": 1}  # what synthesis is cut for where the device does not say
_ITEM_BLOCKS = 48  # hops of an item of synthesis, where there are many: the halo is a small part of that


class _Prepared(NamedTuple):
    plan: Plan
    table: Table
    kernel: Any


_prepared: BoundedCache[_Prepared] = BoundedCache("prepared kernels", 128)


def refusal(dtype: torch.dtype, n_fft: int, hop_length: int) -> str | None:
    """Why no kernel covers these arguments, or None when one does."""
    if dtype != torch.float32:
        return f"dtype {dtype}".replace("torch.", "")
    if not supported(n_fft):
        return "n_fft beyond threadgroup memory"
    if hop_length > _INT32_MAX:
        return "hop_length beyond 32 bits"
    return None


def _prepare(
    backend: str, name: str, n_fft: int, device: torch.device, extra: tuple[tuple[str, int], ...]
) -> _Prepared:
    def build() -> _Prepared:
        plan = make_plan(n_fft, name)
        defines = plan.defines + extra
        compiled = library(backend, _SHADERS[name], defines, device.index or 0)
        return _Prepared(plan, table_for(plan, device), getattr(compiled, name))

    return _prepared.get((backend, name, n_fft, device, extra), build)


_SHADERS = {"analysis": "stft.metal", "synthesis": "istft.metal"}


def _shape_arguments(plan: Plan) -> tuple[int, ...]:
    """P_THREADS .. P_PRIME, which only run-time sizes read."""
    if plan.kind != "mixed":
        return (0,) * 11
    radices = plan.radices[1:] if plan.prime else plan.radices
    return (plan.threads, plan.slots, len(radices), *radices, *(0,) * (7 - len(radices)), plan.prime)


def _envelope_mode(env: torch.Tensor | None, full_length: int) -> int:
    if env is None:
        return 0
    return 1 if env.shape[0] == full_length else 2


def analysis(
    backend: str,
    x: torch.Tensor,
    window: torch.Tensor,
    env: torch.Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    scale: float,
    hermitian: bool,
) -> torch.Tensor:
    """The op `analysis` (see _ops.py) by its kernel."""
    batch, length = x.shape
    row_stride, stride = x.stride()
    aligned = stride == 1 and (
        n_fft % 2 == 1  # two frames at a time are read sample by sample
        or (
            (batch == 1 or row_stride % 2 == 0)
            and hop_length % 2 == 0
            and offset % 2 == 0
            and x.data_ptr() % 8 == 0
            and window.data_ptr() % 8 == 0
        )
    )
    plan, table, kernel = _prepare(backend, "analysis", n_fft, x.device, (("ALIGNED", int(aligned)),))
    bins = n_fft // 2 + 1
    out = x.new_empty((batch, n_frames, bins, 2)).transpose(1, 2)
    per_row = -(-n_frames // plan.frames_per_unit)
    units = batch * per_row
    if units == 0:
        return out
    _check_grid(units)
    full_length = (n_frames - 1) * hop_length + n_fft
    integers = (
        units,
        per_row,
        n_frames,
        hop_length,
        offset,
        length,
        row_stride,
        stride,
        0,
        n_fft,
        plan.points,
        _envelope_mode(env, full_length),
        full_length,
        *_shape_arguments(plan),
        _PAD_MODES[pad_mode],
        0,
        0,
        0,
        0,
        table.untangle_at,
        table.chirp_at,
        table.spectrum_at,
    )
    # both kinds of untangling sum two terms where the mean is meant
    floats = (0.5 * scale, scale if hermitian else 0.5 * scale)
    groups = -(-units // plan.slots)
    kernel(
        x,
        window,
        window if env is None else env,
        table.values,
        out,
        integers,
        floats,
        threads=groups * plan.group,
        group_size=plan.group,
    )
    return out


def synthesis(
    backend: str,
    spec: torch.Tensor,
    window: torch.Tensor,
    env: torch.Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    length: int,
    scale: float,
    hermitian: bool,
) -> torch.Tensor:
    """The op `synthesis` (see _ops.py) by its kernel."""
    if pad_mode in ("replicate", "circular") and offset > 0:
        # many padded samples meet in one: unfold the padding outside of the kernel
        padded = synthesis(
            backend, spec, window, env, n_fft, hop_length, 0, "constant", length + 2 * offset, scale, hermitian
        )
        return _fold_padding(padded, offset, length, pad_mode)
    batch, _, n_frames, _ = spec.shape
    spec, strides = _complex_strides(spec)
    rows = segments(make_plan(n_fft, "synthesis"), hop_length)
    variant = (("SEGMENTS", rows), ("BINS_CONTIGUOUS", int(strides[1] == 1)))
    plan, table, kernel = _prepare(backend, "synthesis", n_fft, spec.device, variant)
    out = window.new_empty((batch, length))
    folded = pad_mode == "reflect" and offset > 0
    first_block = 0 if folded else offset // hop_length
    end = length + (2 * offset if folded else offset)
    end_block = -(-end // hop_length)
    row_blocks = end_block - first_block
    halo = -(-n_fft // hop_length) - 1
    if batch == 0 or length == 0:
        return out
    capacity = _multiprocessors(backend, spec.device) * plan.resident * plan.slots
    # an item owns all of an edge that folds back
    per_row, blocks = _items(capacity, batch, row_blocks, (2 * offset) // hop_length + 2 if folded else 1)
    items = batch * per_row
    _check_grid(items)
    full_length = (n_frames - 1) * hop_length + n_fft
    mode = _envelope_mode(env, full_length)
    if rows:
        window = window if window.data_ptr() % 8 == 0 else window.clone()
        inner_begin = max(offset, 2 * offset + 1 if folded else 0, n_fft if mode else 0)
        inner_end = 0 if mode == 1 else min(offset + length, full_length - (n_fft if mode else 0))
        direct = offset % 2 == 0 and (batch == 1 or length % 2 == 0)
        shape = (int(direct), inner_begin, inner_end, *(0,) * 8)
    else:
        shape = _shape_arguments(plan)
    integers = (
        items,
        per_row,
        n_frames,
        hop_length,
        offset,
        length,
        strides[0],
        strides[2],
        strides[1],
        n_fft,
        plan.points,
        mode,
        full_length,
        *shape,
        _PAD_MODES[pad_mode] if folded else 0,
        first_block,
        blocks,
        end_block,
        halo,
        table.untangle_at,
        table.chirp_at,
        table.spectrum_at,
    )
    floats = (1.0, scale) if hermitian else (2.0, 0.5 * scale)
    groups = -(-items // plan.slots)
    kernel(
        spec,
        window,
        window if env is None else env,
        table.values,
        out,
        integers,
        floats,
        threads=groups * plan.group,
        group_size=plan.group,
    )
    return out


def _check_grid(units: int) -> None:
    if units > _INT32_MAX:
        raise RuntimeError(f"a kernel takes at most {_INT32_MAX} frames in one call, got {units}")


def _complex_strides(spec: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """A tensor whose (re, im) pairs are adjacent and aligned, and its strides in pairs."""
    strides = spec.stride()
    if strides[3] != 1 or any(s % 2 for s in strides[:3]) or spec.data_ptr() % 8:
        spec = spec.contiguous()
        strides = spec.stride()
    return spec, (strides[0] // 2, strides[1] // 2, strides[2] // 2)


def _multiprocessors(backend: str, device: torch.device) -> int:
    if backend == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return _MULTIPROCESSORS[backend]


def _items(capacity: int, batch: int, row_blocks: int, least: int) -> tuple[int, int]:
    """Into how many items a row is cut, and the hops of each but the last, which takes the rest.

    Every item repeats the frames that reach into it from before, so items are as long as a device that takes `capacity` of
    them at a time allows, in whole waves. The first and the last must have `least` hops.
    """
    total = batch * row_blocks
    waves = max(1, round(total / (capacity * _ITEM_BLOCKS)))
    blocks = max(least, -(-total // (capacity * waves)))
    count = -(-row_blocks // min(blocks, row_blocks))
    blocks = max(least, -(-row_blocks // count))
    count = -(-row_blocks // blocks)
    if count > 1 and row_blocks - (count - 1) * blocks < least:
        count -= 1
    return count, min(blocks, row_blocks)


def _fold_padding(padded: torch.Tensor, offset: int, length: int, pad_mode: str) -> torch.Tensor:
    """Adjoint of replicate and circular padding: adds what lies in the padding to the samples it was copied from."""
    before, out, after = padded.split((offset, length, offset), dim=-1)
    out = out.contiguous()
    if pad_mode == "replicate":
        out[:, 0] += before.sum(-1)
        out[:, -1] += after.sum(-1)
    else:
        out[:, length - offset :] += before
        out[:, :offset] += after
    return out
