"""The one pipeline behind all mel front ends: pad, transform, power, bands and scale in one op, then what remains."""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _bands, _reference, _windows
from ._arguments import HALVES, ArgumentError, _check_batch, _sizes, _tensor, choice, flag, integer
from ._arguments import check_padding as check_centre_padding
from ._bands_reference import exportable, reference
from ._cache import BoundedCache
from ._clip import clip_in_place
from ._coverage import differentiates, resolved, traced, tracing_reason
from ._derived import remember
from ._diagnostics import count_torch_route
from .filters import clipped, db_arguments
from .typing import CenterTailPad, LogMelMode, MelOutputScale

_prepared: BoundedCache[Tensor] = BoundedCache("front-end tables", 128)
_TINY_STD = 1e-5
_TAIL_PADS, _OUTPUT_SCALES, _LOG_MODES = map(get_args, (CenterTailPad, MelOutputScale, LogMelMode))


class Spectrum(NamedTuple):
    """How a signal becomes the powers of its spectrum."""

    n_fft: int
    hop_length: int
    win_length: int
    center: bool = True
    pad_mode: str = "constant"
    padding: int | str | None = None
    center_tail_pad: str = "symmetric"
    drop_last_frame: bool = False
    pad: int = 0
    preemphasis: float = 0.0
    power: float = 2.0
    scale: float = 1.0
    unit_energy: bool = False
    magnitude_eps: float = 0.0
    use_mps_kernels: bool = True


class Output(NamedTuple):
    """How bands become the result: mode, factor and floor of the op, then clipping at `top`, shift, normalization."""

    mode: str = "linear"
    factor: float = 1.0
    floor: float = 0.0
    top: float | None = None
    clip: str = "per_example"
    shift: float = 0.0
    normalize: str | None = None


# --- arguments -------------------------------------------------------------------------------------------------------


def spectrum(
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    normalized: bool | str = False,
    true_means: str = "frame_length",
    **options: Any,
) -> Spectrum:
    """Checks the arguments they all share.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a value that does not fit.
    """
    n_fft, hop_length, win_length = _sizes(n_fft, hop_length, win_length)
    name = true_means if normalized is True else normalized
    if name not in (False, None, "window", "frame_length"):
        raise ArgumentError(f"normalized must be False, True, 'window' or 'frame_length', got {normalized!r}")
    scale = n_fft**-0.5 if name == "frame_length" else 1.0
    checked = Spectrum(n_fft, hop_length, win_length, scale=scale, unit_energy=name == "window", **options)
    flag("center", checked.center)
    choice("pad_mode", checked.pad_mode, _reference.PAD_MODES)
    choice("center_tail_pad", checked.center_tail_pad, _TAIL_PADS)
    if checked.center_tail_pad == "minimal" and checked.pad_mode != "constant":
        raise ArgumentError(f"center_tail_pad='minimal' must go with pad_mode='constant', got {checked.pad_mode!r}")
    if not (checked.padding is None or checked.padding == "same" or integer("padding", checked.padding) >= 0):
        raise ArgumentError(f"padding must be None, 'same' or at least 0, got {checked.padding!r}")
    if integer("pad", checked.pad) < 0:
        raise ArgumentError(f"pad must be at least 0, got {checked.pad}")
    if not checked.power > 0:
        raise ArgumentError(f"power must be positive, got {checked.power}")
    if not checked.magnitude_eps >= 0:
        raise ArgumentError(f"magnitude_eps must be at least 0, got {checked.magnitude_eps}")
    return checked


def output(
    output_scale: str,
    power: float,
    log_amin: float = 1e-5,
    log_mode: str = "clamp",
    log_scale: float | None = None,
    top_db: float | None = None,
    mode: str = "per_example",
    log_base: float | None = None,
    dynamic_range: float | None = None,
    affine: tuple[float, float] = (1.0, 0.0),
    normalize: str | None = None,
) -> Output:
    """Checks how bands are to be scaled, and says it as the op takes it.

    Raises:
        ValueError: an unknown name or a value out of range.
    """
    choice("output_scale", output_scale, _OUTPUT_SCALES)
    choice("log_mode", log_mode, _LOG_MODES)
    if normalize not in (None, "per_feature"):
        raise ArgumentError(f"normalize must be None or 'per_feature', got {normalize!r}")
    for name, value in (("log_amin", log_amin), ("log_scale", log_scale)):
        if value is not None and not value > 0:
            raise ArgumentError(f"{name} must be positive, got {value}")
    if log_base is not None and not log_base > 1:
        raise ArgumentError(f"log_base must be above 1, got {log_base}")
    if dynamic_range is not None and not dynamic_range >= 0:
        raise ArgumentError(f"dynamic_range must be None or at least 0, got {dynamic_range}")
    factor_db = db_arguments("magnitude" if power == 1 else "power", top_db, 1e-10, mode)
    gain, shift = affine
    if not gain > 0:
        raise ArgumentError(f"affine must be (gain above 0, shift), got {affine}")
    op_mode, factor, floor, top = "linear", 1.0, 0.0, None
    if output_scale == "db":
        op_mode, factor, floor, top = "clamp", factor_db / math.log(10.0), 1e-10, top_db
    elif output_scale == "log":
        factor = 1.0 if log_base is None else 1.0 / math.log(log_base)
        floor = log_amin if log_mode != "log1p" else 1.0 / log_amin if log_scale is None else log_scale
        op_mode, top = log_mode, dynamic_range
    if op_mode == "linear" and gain != 1.0:
        raise ArgumentError(f"affine must be (1.0, 0.0) with output_scale='linear', got {affine}")
    # the gain commutes with clipping
    return Output(op_mode, gain * factor, floor, None if top is None else gain * top, mode, shift, normalize)


# --- windows and banks -----------------------------------------------------------------------------------------------


def _whole_window(window: Tensor, n_fft: int, unit_energy: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    window = window.to(device, dtype)
    if unit_energy:
        window = window / window.square().sum().sqrt()
    return _windows.full_size(window, n_fft)


def _bank_for(basis: Tensor, n_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    basis = basis.to(device, dtype)
    missing = n_bins - basis.shape[1]
    return F.pad(basis, (0, missing)) if missing > 0 else basis[:, :n_bins].contiguous()


def _kept(table: Tensor, build: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """build(table, ...), made once for a table that nobody differentiates."""
    return build(table, *arguments) if differentiates(table) else remember(_prepared, table, build, *arguments)


# --- the pipeline ----------------------------------------------------------------------------------------------------


def signal(x: Tensor) -> Tensor:
    """The signal as front ends compute it: float32, or float64 for float64.

    Raises:
        TypeError: no dense floating point tensor.
        ValueError: no samples' dimension, an empty batch.
    """
    _tensor("x", x)
    if not x.is_floating_point():
        raise TypeError(f"x must be real and floating point, got {x.dtype}")
    if x.dim() == 0:
        raise ArgumentError("x must have shape (..., T), got a 0-dimensional tensor")
    _check_batch(x, x.dim() - 1)
    return resolved(x.float() if x.dtype in HALVES else x)


def _frames(length: int, s: Spectrum) -> tuple[int, int, str, int]:
    """Padding before and after, its mode, and the number of frames."""
    mode, left, right = s.pad_mode, 0, 0
    if s.padding == "same":
        left = (s.win_length - s.hop_length) // 2
        right = max((s.win_length - s.hop_length + 1) // 2, s.win_length - length - left)
        if left < 0:
            raise ArgumentError(f"hop_length must not exceed win_length={s.win_length} with padding='same'")
        mode = mode if right < length else "constant"
    elif s.padding is not None:
        left = right = int(s.padding)
    elif s.center:
        left = right = s.n_fft // 2
        check_centre_padding(length, s.n_fft, mode)
        if s.center_tail_pad == "minimal":
            n_frames = max(1, -(-length // s.hop_length))
            right = max(0, (n_frames - 1) * s.hop_length + s.n_fft - left - length)
            return left, right, mode, n_frames - int(s.drop_last_frame)
    total = left + length + right
    if total < s.n_fft:
        raise ArgumentError(f"x must have at least {s.n_fft - left - right} samples here, got {length}")
    try:
        _reference.check_padding(length, left, right, mode)
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    return left, right, mode, 1 + (total - s.n_fft) // s.hop_length - int(s.drop_last_frame)


def zeros_where_short(s: Spectrum, length: int) -> Spectrum:
    """The same, but padded by zeros where a signal is too short to be reflected or wrapped around."""
    least = {"reflect": s.n_fft // 2 + 1, "circular": s.n_fft // 2, "replicate": 1}.get(s.pad_mode, 0)
    return s._replace(pad_mode="constant") if s.center and s.padding is None and length < least else s


def run(x: Tensor, window: Tensor, basis: Tensor | None, s: Spectrum, out: Output) -> Tensor:
    """Bands of a signal.

    Args:
        x: (..., T) real.
        window: (win_length,) on the device of x.
        basis: (n_bands, n_freqs), or None for the bins themselves. Where n_freqs is not n_fft // 2 + 1, the spectrum
            is cut or continued by zeros to n_freqs bins.

    Returns:
        (..., n_bands, n_frames), where the bands of one frame are adjacent in memory.
    """
    lead = x.shape[:-1]
    x = signal(x)
    x = x.reshape(math.prod(lead), x.shape[-1]) if x.dim() != 2 else x
    if s.pad:
        x = F.pad(x, (s.pad, s.pad))
    if s.preemphasis:
        x = torch.cat([x[:, :1], x[:, 1:] - s.preemphasis * x[:, :-1]], 1)
    window = _kept(window, _whole_window, s.n_fft, s.unit_energy, x.dtype, x.device)
    n_bins = s.n_fft // 2 + 1
    if basis is not None and not (basis.shape[1] == n_bins and basis.dtype == x.dtype and basis.device == x.device):
        basis = _kept(basis, _bank_for, n_bins, x.dtype, x.device)
    offset, right, mode, n_frames = _frames(x.shape[1], s)
    exported = tracing_reason()
    if (
        exported is None and mode != "constant" and right > offset
    ):  # kernels pad no more after the signal than before it
        x = _reference.padded(x, offset, offset + x.shape[1] + right, mode)
        offset, mode = 0, "constant"
    inside = s.power == 1
    eps = s.magnitude_eps * (s.scale**2 if inside else s.scale**s.power)
    numbers = (s.n_fft, s.hop_length, offset, mode, n_frames, s.scale, float(s.power), eps, inside, *out[:3])
    if exported is not None:
        bands = exportable(x, window, basis, right, s.drop_last_frame, *numbers)
    elif s.use_mps_kernels:
        bands = _bands.call_bands(x, window, basis, *numbers)
    else:
        if not torch.compiler.is_compiling():
            count_torch_route("use_mps_kernels=False")
        bands = reference(x, window, basis, *numbers)
    if len(lead) != 1:
        bands = bands.squeeze(0) if not lead else bands.unflatten(0, lead)
    return _finished(bands, out, s.use_mps_kernels)


def _finished(bands: Tensor, out: Output, by_kernels: bool) -> Tensor:
    own = not (traced() or differentiates(bands))
    done = False
    if by_kernels and own and out.top is not None:
        done = clip_in_place(bands, out.top, out.clip, out.shift)
    if not done:
        bands = clipped(bands, out.top, out.clip, bands if own else None)
        if out.shift:
            bands = bands.add_(out.shift) if own else bands + out.shift
    if out.normalize == "per_feature":
        if bands.shape[-1] < 2:
            raise ArgumentError(f"normalize='per_feature' must have at least 2 frames, got {bands.shape[-1]}")
        mean, std = bands.mean(-1, keepdim=True), bands.std(-1, keepdim=True)
        bands = (bands - mean) / (std + _TINY_STD)
    return bands
