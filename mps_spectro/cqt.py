"""Hybrid constant-Q transform: a function and a module, the numbers of librosa.hybrid_cqt."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._arguments import ArgumentError
from ._cache import BoundedCache
from ._compiled import CompiledMethods
from ._coverage import traced
from ._cqt_plan import Arguments, Octave, Plan, build, checked
from ._decimate import decimate
from ._derived import remember
from ._float_buffers import FloatBuffers
from ._frontend import Output, Spectrum, run, signal
from ._reference import padded
from ._shown import shown
from ._window_functions import WindowFunction
from .stft import stft

Tables = dict[str, Tensor]

_plans: BoundedCache[tuple[Plan, tuple[str, ...], tuple[Tensor, ...]]] = BoundedCache("CQT plans", 64)
_fitted: BoundedCache[Tensor] = BoundedCache("CQT tables", 128)
# bins of the spectra that one octave holds at a time
_CHUNK = 1 << 26


def hybrid_cqt(
    x: Tensor,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    n_bins: int = 84,
    bins_per_octave: int = 12,
    tuning: float = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1.0,
    sparsity: float = 0.01,
    window: WindowFunction | str = "hann",
    scale: bool = True,
    pad_mode: str | None = None,
    scaling: str = "librosa",
) -> Tensor:
    """Magnitudes of the hybrid constant-Q transform, as librosa.hybrid_cqt.

    Filters that fit into two hops are applied to the magnitudes of one spectrogram. The others are applied octave by
    octave, each at half the sample rate of the one above as long as the hop length can be halved; frame m is centred at
    sample m * hop_length in every octave, whatever the hop length. Results agree with librosa 0.11 and its default
    resampler to 1e-5 of the largest value, except that about one filter in a thousand drops one bin more or less, where
    `sparsity` falls on it (up to 4e-3 there; never with sparsity=0). Gradients flow to the signal and are finite at
    silence.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        sr: sample rate in Hz.
        hop_length: samples between frames.
        fmin: centre of the lowest bin in Hz; default C1, 32.7 Hz.
        n_bins: number of bins.
        bins_per_octave: bins to an octave.
        tuning: shift of all bins, in bins.
        filter_scale: factor of the length of the filters.
        norm: order of the norm that each filter gets: 1, 2, any positive number, inf, -inf, 0, or None for none.
        sparsity: share of the magnitudes of each filter's spectrum that may be dropped, at least 0 and less than 1.
        window: of the filters: a name or a function, as for `mel_spectrogram`.
        scale: divide by the root of each filter's length.
        pad_mode: "constant", "reflect" (a short signal again and again, as numpy does) or "edge"; default "constant".
        scaling: "librosa", or "mlx" for the numbers of mlx-spectro: a Hann window on all spectra, symmetric windows of
            whole samples on the filters, a quantile of the bins dropped, another decimation filter, and a division by
            the root of the filter's length also where librosa has none. pad_mode is then "reflect" by default (zeros
            for an octave too short), window and scale are fixed. Where mlx-spectro lets the frames of its octaves
            drift apart (a hop length not divisible by 2 ** (octaves - 1)), they stay together here.

    Returns:
        (..., n_bins, n_frames), not negative; the bins of one frame are adjacent in memory. There are
        1 + T // hop_length frames; where all filters are long and the signal is first decimated by d, T is rounded up
        to a multiple of d.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value that does not fit; bins or bands beyond sr / 2 (librosa lets bins of the spectrogram alias);
            a signal shorter than the first decimation.
    """
    given = checked(Arguments(**{name: value for name, value in locals().items() if name != "x"}))
    x = signal(x)
    plan, names, tables = _prepared(tuple(given), x.device)
    if torch.compiler.is_compiling():
        tables = tuple(table.detach() for table in tables)  # constants of a graph cannot say whether they require grad
    return _transform(x, plan, dict(zip(names, tables)))


class HybridCQTTransform(CompiledMethods, FloatBuffers):
    """Hybrid constant-Q transform module: (..., T) to (..., n_bins, n_frames), as librosa.hybrid_cqt.

    Windows, filters and decimators are buffers that are not in the state dict. They move with the module, stay in
    float32 when it is cast to half, and follow the dtype and device of the signal where they differ.

    Args:
        sr to scaling: as for `hybrid_cqt`.

    Raises:
        TypeError, ValueError: as `hybrid_cqt`, where they do not depend on the signal.
    """

    def __init__(
        self,
        *,
        sr: float = 22050,
        hop_length: int = 512,
        fmin: float | None = None,
        n_bins: int = 84,
        bins_per_octave: int = 12,
        tuning: float = 0.0,
        filter_scale: float = 1.0,
        norm: float | None = 1.0,
        sparsity: float = 0.01,
        window: WindowFunction | str = "hann",
        scale: bool = True,
        pad_mode: str | None = None,
        scaling: str = "librosa",
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self._arguments = given
        for name, value in given.items():
            setattr(self, name, value)
        self._plan, tables = build(checked(Arguments(**given)))
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Magnitudes (..., n_bins, n_frames) of x (..., T)."""
        tables = {name: table for name, table in self._buffers.items() if table is not None}
        return _transform(signal(x), self._plan, tables)

    def extra_repr(self) -> str:
        return shown(type(self), self._arguments)


@torch.compiler.assume_constant_result
def _prepared(given: tuple[Any, ...], device: torch.device) -> tuple[Plan, tuple[str, ...], tuple[Tensor, ...]]:
    """The plan, the names of its tables and the tables: tuples, which alone a compiler takes as constants."""

    def make() -> tuple[Plan, tuple[str, ...], tuple[Tensor, ...]]:
        plan, tables = build(Arguments(*given))
        # an inference tensor must not reach a later training step
        with torch.inference_mode(False), torch.no_grad():
            return plan, tuple(tables), tuple(table.to(device) for table in tables.values())

    return make() if traced() else _plans.get((given, device), make)


def _fit(table: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    if table.dtype == dtype and table.device == device:
        return table
    return remember(_fitted, table, Tensor.to, device, dtype)


# --- the transform ---------------------------------------------------------------------------------------------------


def _transform(x: Tensor, plan: Plan, tables: Tables) -> Tensor:
    lead = x.shape[:-1]
    x = x.reshape(math.prod(lead), x.shape[-1]) if x.dim() != 2 else x
    if x.shape[1] < plan.shortest:
        raise ArgumentError(f"x must have at least {plan.shortest} samples here, got {x.shape[1]}")
    tables = {name: _fit(table, x.dtype, x.device) for name, table in tables.items()}
    # half precision would be that of the products
    with torch.autocast(x.device.type, enabled=False):
        bins = _bins(x, plan, tables)
    bins = bins.transpose(1, 2)
    if len(lead) == 1:
        return bins
    return bins.unflatten(0, lead) if lead else bins.squeeze(0)


def _bins(x: Tensor, plan: Plan, tables: Tables) -> Tensor:
    """(B, n_frames, n_bins)."""
    early = 1 if plan.pseudo else plan.shortest
    n_frames = 1 + -(-x.shape[1] // early) // (plan.hop_length // early)
    parts, y = [], x
    for number, octave in enumerate(plan.octaves):
        if octave.halvings:
            y = decimate(y, [tables[name] for name in octave.halvings], _decimation_mode(y, plan))
        parts.append(_response(y, octave, plan, tables[f"window_{octave.n_fft}"], tables[f"basis_{number}"], n_frames))
    full = [torch.view_as_complex(torch.cat(parts[::-1], 2).unflatten(2, (-1, 2))).abs()] if parts else []
    if not plan.pseudo:
        return full[0]
    n_fft = plan.pseudo
    z, center, pad_mode = _padding(x, n_fft, plan)
    s = Spectrum(n_fft, plan.hop_length, n_fft, center=center, pad_mode=pad_mode, power=1.0)
    pseudo = run(z, tables["pseudo_window"], tables["pseudo_basis"], s, Output()).transpose(1, 2)
    return torch.cat([*full, pseudo], 2) if full else pseudo


def _response(y: Tensor, octave: Octave, plan: Plan, window: Tensor, basis: Tensor, n_frames: int) -> Tensor:
    """Complex responses of the filters of one octave as pairs: (B, n_frames, 2 n_filters)."""
    n_fft, hop_length = octave.n_fft, octave.hop_length

    def respond(y: Tensor, center: bool, pad_mode: str, frames: int) -> Tensor:
        spec = stft(y, n_fft, hop_length, window=window, center=center, pad_mode=pad_mode)
        pairs = torch.view_as_real(spec.transpose(1, 2))[:, :frames]
        last = octave.first_bin + basis.shape[0] // 2
        return torch.matmul(pairs[:, :, octave.first_bin : last].flatten(2), basis)

    y, center, pad_mode = _padding(y, n_fft, plan)
    most = max(1, _CHUNK // (y.shape[0] * (n_fft // 2 + 1)))
    if n_frames <= most:
        return respond(y, center, pad_mode, n_frames)
    if center:
        y = padded(y, n_fft // 2, y.shape[1] + n_fft // 2 * 2, pad_mode)
    parts = []
    for first in range(0, n_frames, most):
        frames = min(most, n_frames - first)
        begin = first * hop_length
        parts.append(respond(y[:, begin : begin + (frames - 1) * hop_length + n_fft], False, "constant", frames))
    return torch.cat(parts, 1)


def _padding(y: Tensor, n_fft: int, plan: Plan) -> tuple[Tensor, bool, str]:
    """The signal, and the `center` and `pad_mode` of its transform."""
    pad = n_fft // 2
    if plan.pad_mode != "reflect" or y.shape[1] > pad:
        return y, True, plan.pad_mode
    if not plan.long_reflection:
        return y, True, "constant"
    last = y.shape[1] - 1
    places = torch.arange(-pad, y.shape[1] + pad, device=y.device).remainder(max(1, 2 * last))
    return y.index_select(1, last - (places - last).abs()), False, "constant"


def _decimation_mode(y: Tensor, plan: Plan) -> str:
    if plan.decimation_pad_mode != "reflect":
        return plan.decimation_pad_mode
    return "reflect" if y.shape[1] > 31 else "replicate"
