"""Launches the kernels: the arguments of the shaders from those of the ops."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any, Callable, Iterator, NamedTuple

import torch

from ._cache import BoundedCache
from ._plan import SIMD_WIDTH, Plan, abreast, make_plan, segments, supported
from ._runtime import library
from ._tables import Table, table_for

_PAD_MODES = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}
_INT32_MAX = 2**31 - 1
_MULTIPROCESSORS = {"metal": 20, "host": 1}  # what synthesis is cut for where the device does not say
_ITEM_BLOCKS = 48  # hops of an item of synthesis, where there are many: the halo is a small part of that
_ITEM_STEPS = 48  # the same where slots work on an item together, in steps of theirs
_FEW_BLOCKS = 8192  # hops in all rows up to which they do: a device is not busy with more items than that


class _Prepared(NamedTuple):
    plan: Plan
    table: Table
    kernel: Any
    capacity: int


_prepared: BoundedCache[_Prepared] = BoundedCache("prepared kernels", 128)
_launches: BoundedCache[Launch] = BoundedCache("launches", 512)


_run_time_sizes: ContextVar[bool] = ContextVar("mps_spectro_run_time_sizes", default=False)


@contextlib.contextmanager
def run_time_sizes() -> Iterator[None]:
    """Inside the block every n_fft takes a kernel that is shared by many sizes: for sweeps, which must not compile."""
    token = _run_time_sizes.set(True)
    try:
        yield
    finally:
        _run_time_sizes.reset(token)


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
    backend: str,
    name: str,
    n_fft: int,
    device: torch.device,
    extra: tuple[tuple[str, int], ...],
    plan: Plan | None = None,
) -> _Prepared:
    swept = _run_time_sizes.get()

    def build() -> _Prepared:
        chosen = make_plan(n_fft, name, swept) if plan is None else plan
        defines = tuple({**dict(chosen.defines), **dict(extra)}.items())
        compiled = library(backend, _SHADERS[name], defines, device.index or 0)
        kernel = getattr(compiled, name)
        return _Prepared(chosen, table_for(chosen, device), kernel, _capacity(backend, device, chosen, kernel))

    return _prepared.get((backend, name, n_fft, device, extra, plan, swept), build)


_SHADERS = {
    "analysis": "stft.metal",
    "synthesis": "istft.metal",
    "abreast": "abreast.metal",
    "bands": "bands.metal",
    "gains": "gains.metal",
}


def _shape_arguments(plan: Plan) -> tuple[int, ...]:
    """P_THREADS .. P_PRIME, which only run-time sizes read."""
    if plan.kind != "mixed":
        return (0,) * 11
    radices = plan.radices[1:] if plan.prime else plan.radices
    return (plan.threads, plan.slots, len(radices), *radices, *(0,) * (7 - len(radices)), plan.prime)


def _envelope_mode(env_length: int | None, full_length: int) -> int:
    if env_length is None:
        return 0
    return 1 if env_length == full_length else 2


class Launch(NamedTuple):
    """A kernel bound to everything but its tensors."""

    run: Callable[..., None]  # (signal or spectrum, window, env or window, table, out)
    table: torch.Tensor


def _bind(kernel: Any, integers: tuple[int, ...], floats: tuple[float, ...], groups: int, group_size: int) -> Any:
    if hasattr(kernel, "bind"):
        return kernel.bind(integers, floats, groups, group_size)

    def run(*tensors: torch.Tensor) -> None:
        kernel(*tensors, integers, floats, threads=groups * group_size, group_size=group_size)

    return run


def aligned(*tensors: torch.Tensor) -> bool:
    """Whether pairs of float32 may be read from the start of each tensor."""
    return not any(tensor.data_ptr() % 8 for tensor in tensors)


def _frames_arguments(
    plan: Plan,
    table: Table,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    env_length: int | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    ending: tuple[int, int, int, int],
) -> tuple[int, ...]:
    """The integers of the kernels that begin with frames of a signal (B, T); `ending`: P_BANDS and the three after."""
    batch, length = shape
    per_row = -(-n_frames // plan.frames_per_unit)
    _check_grid(batch * per_row)
    full_length = (n_frames - 1) * hop_length + n_fft
    return (
        batch * per_row,
        per_row,
        n_frames,
        hop_length,
        offset,
        length,
        *strides,
        0,
        n_fft,
        plan.points,
        _envelope_mode(env_length, full_length),
        full_length,
        *_shape_arguments(plan),
        _PAD_MODES[pad_mode],
        *ending,
        table.untangle_at,
        table.chirp_at,
        table.spectrum_at,
    )


def _direct(shape: tuple[int, ...], strides: tuple[int, ...], pairs: bool, n_fft: int, hop: int, offset: int) -> bool:
    """Whether the samples of a frame may be read as they come: in aligned pairs, or one by one for two odd frames."""
    even = (shape[0] == 1 or strides[0] % 2 == 0) and hop % 2 == 0 and offset % 2 == 0
    return strides[1] == 1 and (n_fft % 2 == 1 or (pairs and even))


def bind_analysis(
    backend: str,
    device: torch.device,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    pairs: bool,
    env_length: int | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    scale: float,
    hermitian: bool,
) -> Launch:
    """The launch of analysis for signals (B, T) of these shapes; `pairs`: signal and window are `aligned`."""
    direct = _direct(shape, strides, pairs, n_fft, hop_length, offset)
    plan, table, kernel, _ = _prepare(backend, "analysis", n_fft, device, (("ALIGNED", int(direct)),))
    sizes = (n_fft, hop_length, offset, pad_mode, n_frames)
    integers = _frames_arguments(plan, table, shape, strides, env_length, *sizes, (0, 0, 0, 0))
    # both kinds of untangling sum two terms where the mean is meant
    floats = (0.5 * scale, scale if hermitian else 0.5 * scale)
    return Launch(_bind(kernel, integers, floats, -(-integers[0] // plan.slots), plan.group), table.values)


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
    out = x.new_empty((x.shape[0], n_frames, n_fft // 2 + 1, 2)).transpose(1, 2)
    if out.numel() == 0:
        return out
    env_length = None if env is None else env.shape[0]
    shape = (n_fft, hop_length, offset, pad_mode, n_frames, scale, hermitian)
    key = (backend, x.device, tuple(x.shape), x.stride(), aligned(x, window), env_length, *shape)
    launch = _launches.get(("analysis", _run_time_sizes.get(), *key), lambda: bind_analysis(*key))
    launch.run(x, window, window if env is None else env, launch.table, out)
    return out


def bind_synthesis(
    backend: str,
    device: torch.device,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    pairs: bool,
    env_length: int | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    length: int,
    scale: float,
    hermitian: bool,
) -> Launch:
    """The launch of synthesis for spectra of (B, n_frames), strides of (row, bin, frame) in complex numbers.

    `pairs`: the window is `aligned`. Padding is "constant" or "reflect".
    """
    batch, n_frames = shape
    folded = pad_mode == "reflect" and offset > 0
    first_block = 0 if folded else offset // hop_length
    end_block = -(-(length + (2 * offset if folded else offset)) // hop_length)
    row_blocks = end_block - first_block
    halo = -(-n_fft // hop_length) - 1
    # what overlaps stays in registers for hops of whole rows of the last pass
    ring_plan = make_plan(n_fft, "synthesis", _run_time_sizes.get())
    rows = segments(ring_plan, hop_length) if pairs else 0
    variant = (("SEGMENTS", rows), ("BINS_CONTIGUOUS", int(strides[1] == 1)))
    together = _plan_abreast(ring_plan, strides, batch * row_blocks) if rows else None
    if together is None:
        plan, table, kernel, capacity = _prepare(backend, "synthesis", n_fft, device, (*variant, ("STAGED", 0)))
        items_of_group = plan.slots
    else:
        plan, table, kernel, capacity = _prepare(backend, "abreast", n_fft, device, variant, together)
        items_of_group = 1
    # an item owns all of an edge that folds back
    least = (2 * offset) // hop_length + 2 if folded else 1
    per_row, blocks = _items(row_blocks, least, _wanted_blocks(plan, capacity, batch, row_blocks, halo))
    items = batch * per_row
    _check_grid(items)
    full_length = (n_frames - 1) * hop_length + n_fft
    mode = _envelope_mode(env_length, full_length)
    if rows:
        inner_begin = max(offset, 2 * offset + 1 if folded else 0, n_fft if mode else 0)
        inner_end = 0 if mode == 1 else min(offset + length, full_length - (n_fft if mode else 0))
        direct = offset % 2 == 0 and (batch == 1 or length % 2 == 0)
        kind_arguments: tuple[int, ...] = (int(direct), inner_begin, inner_end, *(0,) * 8)
    else:
        kind_arguments = _shape_arguments(plan)
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
        *kind_arguments,
        _PAD_MODES["reflect"] if folded else _PAD_MODES["constant"],
        first_block,
        blocks,
        end_block,
        halo,
        table.untangle_at,
        table.chirp_at,
        table.spectrum_at,
    )
    floats = (1.0, scale) if hermitian else (2.0, 0.5 * scale)
    return Launch(_bind(kernel, integers, floats, -(-items // items_of_group), plan.group), table.values)


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
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The op `synthesis` (see _ops.py) by its kernel, into `out`, rows of which lie one behind the other, if given."""
    if pad_mode in ("replicate", "circular") and offset > 0:
        # many padded samples meet in one: unfold the padding outside of the kernel
        padded = synthesis(
            backend, spec, window, env, n_fft, hop_length, 0, "constant", length + 2 * offset, scale, hermitian
        )
        folded = _fold_padding(padded, offset, length, pad_mode)
        return folded if out is None else out.copy_(folded)
    batch, _, n_frames, _ = spec.shape
    out = window.new_empty((batch, length)) if out is None else out
    if out.numel() == 0:
        return out
    spec, strides = _complex_strides(spec)
    env_length = None if env is None else env.shape[0]
    shape = (n_fft, hop_length, offset, pad_mode, length, scale, hermitian)
    key = (backend, spec.device, (batch, n_frames), strides, aligned(window), env_length, *shape)
    launch = _launches.get(("synthesis", _run_time_sizes.get(), *key), lambda: bind_synthesis(*key))
    launch.run(spec, window, window if env is None else env, launch.table, out)
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


def _capacity(backend: str, device: torch.device, plan: Plan, kernel: Any) -> int:
    """Slots that the device works on at a time."""
    if backend == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        groups = processors * kernel.resident_groups(plan.group, device.index)
    else:
        groups = _MULTIPROCESSORS[backend] * plan.resident
    return groups * plan.slots


def _plan_abreast(plan: Plan, strides: tuple[int, ...], blocks: int) -> Plan | None:
    """The plan for slots that work on an item together, where that is the faster way.

    It is where frames lie side by side, where there is so little to do that the number of steps counts, and where a
    frame takes less than a simdgroup.
    """
    frames_contiguous = strides[1] != 1 and strides[2] == 1
    if frames_contiguous or blocks <= _FEW_BLOCKS or plan.threads < SIMD_WIDTH:
        return abreast(plan, frames_contiguous)
    return None


def _wanted_blocks(plan: Plan, capacity: int, batch: int, row_blocks: int, halo: int) -> int:
    """Hops per item. Every item repeats the frames that reach into it from before.

    So items are as long as a device that takes `capacity` slots at a time allows, in whole waves.
    """
    if plan.abreast:
        groups = capacity // plan.abreast
        waves = max(1, round(batch * row_blocks / (groups * _ITEM_STEPS * plan.abreast)))
        hops = -(-row_blocks // max(1, groups * waves // batch))
        return max(1, -(-(hops + halo) // plan.abreast) * plan.abreast - halo)
    waves = max(1, round(batch * row_blocks / (capacity * _ITEM_BLOCKS)))
    return -(-row_blocks // max(1, capacity * waves // batch))


def _items(row_blocks: int, least: int, wanted: int) -> tuple[int, int]:
    """Into how many items a row is cut, and the hops of each but the last, which takes the rest.

    The first and the last must have `least` hops.
    """
    blocks = min(row_blocks, max(least, wanted))
    count = -(-row_blocks // blocks)
    if count > 1 and row_blocks - (count - 1) * blocks < least:
        count -= 1
    return count, blocks


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
