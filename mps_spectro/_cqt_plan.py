"""What a hybrid constant-Q transform consists of: a spectrogram for the short filters, one per octave for the rest."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _cqt_filters as filters
from ._arguments import ArgumentError, choice, flag, integer
from ._decimate import halving, kaiser_sinc, soxr_stages
from ._window_functions import WindowFunction

C1 = 32.70319566257483
SCALINGS = ("librosa", "mlx")
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "replicate": "replicate"}


class Arguments(NamedTuple):
    """The arguments of the transform, as users give them."""

    sr: float = 22050
    hop_length: int = 512
    fmin: float | None = None
    n_bins: int = 84
    bins_per_octave: int = 12
    tuning: float = 0.0
    filter_scale: float = 1.0
    norm: float | None = 1.0
    sparsity: float = 0.01
    window: WindowFunction | str = "hann"
    scale: bool = True
    pad_mode: str | None = None
    scaling: str = "librosa"


class Octave(NamedTuple):
    """The filters that share one sample rate: how the signal gets there, and its transform.

    `halvings` name the matrices by which the signal of the octave above is decimated (none: it is the same), and the
    basis begins at bin `first_bin`.
    """

    halvings: tuple[str, ...]
    n_fft: int
    hop_length: int
    first_bin: int


class Plan(NamedTuple):
    """Everything but tensors.

    `octaves` go from the highest down; `pseudo` is the size of the spectrogram for the short filters, 0 for none.
    `long_reflection` says what reflects at a signal shorter than the padding: True the reflection again, as in numpy,
    False nothing (zeros).
    """

    hop_length: int
    octaves: tuple[Octave, ...]
    pseudo: int
    pad_mode: str
    long_reflection: bool
    decimation_pad_mode: str
    shortest: int


def checked(given: Arguments) -> Arguments:
    """The arguments with their defaults filled in.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a value that does not fit.
    """
    whole = {name: integer(name, getattr(given, name)) for name in ("hop_length", "n_bins", "bins_per_octave")}
    real = {name: _number(name, getattr(given, name)) for name in ("sr", "tuning", "filter_scale", "sparsity")}
    real["fmin"] = C1 if given.fmin is None else _number("fmin", given.fmin)
    for name, count in whole.items():
        if count < 1:
            raise ArgumentError(f"{name} must be positive, got {count}")
    for name in ("sr", "fmin", "filter_scale"):
        if not 0 < real[name] < math.inf:
            raise ArgumentError(f"{name} must be positive, got {real[name]}")
    if not math.isfinite(real["tuning"]):
        raise ArgumentError(f"tuning must be finite, got {given.tuning}")
    if not 0 <= real["sparsity"] < 1:
        raise ArgumentError(f"sparsity must be at least 0 and less than 1, got {given.sparsity}")
    norm = None if given.norm is None else _number("norm", given.norm)
    if norm is not None and not (norm >= 0 or norm == -math.inf):
        raise ArgumentError(f"norm must be None, inf, -inf, 0 or positive, got {given.norm}")
    if not (isinstance(given.window, str) or callable(given.window)):
        raise TypeError(f"window must be a function or a name, got {given.window!r} ({type(given.window).__name__})")
    flag("scale", given.scale)
    mlx = choice("scaling", given.scaling, SCALINGS) == "mlx"
    if mlx and (given.window != "hann" or not given.scale):
        raise ArgumentError("scaling='mlx' must go with window='hann' and scale=True")
    pad_mode = given.pad_mode
    if pad_mode is None:
        pad_mode = "reflect" if mlx else "constant"
    choice("pad_mode", pad_mode, tuple(_PAD_MODES))
    others = {"norm": norm, "pad_mode": _PAD_MODES[pad_mode], "window": given.window, "scale": given.scale}
    return Arguments(**whole, **real, **others, scaling=given.scaling)  # type: ignore[arg-type]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    return float(value)


def build(given: Arguments) -> tuple[Plan, dict[str, Tensor]]:
    """The plan and its tables, in float32 on the CPU, worked out in float64.

    Raises:
        ValueError: filters that reach beyond half the sample rate, or shorter than a sample.
    """
    # an inference tensor must not reach a later training step
    with torch.inference_mode(False), torch.no_grad():
        return _Builder(given).build()


class _Builder:
    def __init__(self, given: Arguments) -> None:
        self.given = given
        self.mlx = given.scaling == "mlx"
        self.sparse = filters.sparse_by_count if self.mlx else filters.sparse_by_sum
        self.atom = filters.rounded_atom if self.mlx else filters.atom(given.window)
        assert given.fmin is not None  # `checked` has seen to it
        fmin = given.fmin * 2.0 ** (given.tuning / given.bins_per_octave)
        self.freqs = filters.frequencies(given.n_bins, fmin, given.bins_per_octave)
        self.tables: dict[str, Tensor] = {}

    def spectra(self, freqs: list[float], lengths: list[float], sr: float, n_fft: int) -> Tensor:
        # librosa's precision: what rounding leaves in thousands of bins, summed up, decides what `sparsity` drops
        dtype = torch.complex128 if self.mlx else torch.complex64
        rows = filters.spectra(freqs, lengths, sr, n_fft, self.atom, self.given.norm, dtype)
        return self.sparse(rows, self.given.sparsity)

    def lengths(self, freqs: list[float], sr: float) -> list[float]:
        return filters.lengths(freqs, sr, self.given.bins_per_octave, self.given.filter_scale)

    def build(self) -> tuple[Plan, dict[str, Tensor]]:
        given = self.given
        # filters whose padded length is below two hops take the magnitudes of one spectrogram
        sizes = [filters.fft_size([length]) for length in self.lengths(self.freqs, given.sr)]
        n_full = sum(size >= 2 * given.hop_length for size in sizes)
        self.check_band(n_full)
        octaves = self.octaves(self.freqs[:n_full]) if n_full else ()
        assert given.pad_mode is not None
        plan = Plan(
            hop_length=given.hop_length,
            octaves=octaves,
            pseudo=self.pseudo(self.freqs[n_full:]) if n_full < given.n_bins else 0,
            pad_mode=given.pad_mode,
            long_reflection=not self.mlx,
            decimation_pad_mode="reflect" if self.mlx else "constant",
            shortest=2 ** len(octaves[0].halvings) if octaves else 1,
        )
        return plan, {name: table.float() for name, table in self.tables.items()}

    def cutoff(self, freqs: list[float]) -> float:
        """Where the band of the highest filter has fallen by 3 dB."""
        quality = filters.quality(self.given.bins_per_octave, self.given.filter_scale)
        return freqs[-1] * (1.0 + 0.5 * filters.bandwidth(self.given.window) / quality)

    def check_band(self, n_full: int) -> None:
        nyquist = self.given.sr / 2
        if n_full and self.cutoff(self.freqs[:n_full]) > nyquist:
            top, what = self.cutoff(self.freqs[:n_full]), "band"
        elif self.freqs[-1] > nyquist:
            top, what = self.freqs[-1], "bin"
        else:
            return
        raise ArgumentError(
            f"n_bins must keep every {what} below half the sample rate, {nyquist:g} Hz; n_bins={self.given.n_bins} "
            f"from {self.freqs[0]:.5g} Hz reaches {top:.6g} Hz"
        )

    def pseudo(self, freqs: list[float]) -> int:
        given = self.given
        lengths = self.lengths(freqs, given.sr)
        n_fft = max(filters.fft_size(lengths), 2 ** (1 + math.ceil(math.log2(given.hop_length))))
        basis = self.spectra(freqs, lengths, given.sr, n_fft).abs() * n_fft**-0.5
        gains = torch.tensor(lengths, dtype=torch.float64, device="cpu")[:, None]
        if self.mlx:
            basis = basis * gains.rsqrt()
        elif not given.scale:
            basis = basis * gains.sqrt()
        self.tables["pseudo_basis"] = basis
        self.tables["pseudo_window"] = torch.hann_window(n_fft, dtype=torch.float64, device="cpu")
        return n_fft

    def octaves(self, freqs: list[float]) -> tuple[Octave, ...]:
        given = self.given
        per_octave = given.bins_per_octave
        n_octaves = -(-len(freqs) // per_octave)
        halvings = self.early_halvings(freqs, n_octaves)
        factor = 2**halvings
        first_sr = sr = given.sr / factor
        hop_length = given.hop_length // factor
        # both every decimation and, without `scale`, the first one are made up for by the root of their factor
        gain = math.sqrt(factor) if given.scale else float(factor)
        octaves: list[Octave] = []
        for end in range(len(freqs), 0, -per_octave):
            own = freqs[max(0, end - per_octave) : end]
            lengths = self.lengths(own, sr)
            n_fft = filters.fft_size(lengths)
            basis = self.spectra(own, lengths, sr, n_fft) * (gain * math.sqrt(first_sr / sr))
            if given.scale:
                gains = torch.tensor(self.lengths(own, first_sr), dtype=torch.float64, device="cpu")
                basis = basis * gains.rsqrt()[:, None]
            used = basis.abs().amax(0).nonzero()
            first, last = int(used.min()), int(used.max())
            self.tables[f"basis_{len(octaves)}"] = _as_real(basis[:, first : last + 1])
            self.tables[f"window_{n_fft}"] = self.window(n_fft)
            octaves.append(Octave(self.add_halvings(halvings), n_fft, hop_length, first))
            halvings = 0
            if hop_length % 2 == 0:  # else frames of the halved signal would not lie where those of the others do
                halvings, hop_length, sr, gain = 1, hop_length // 2, sr / 2, gain * math.sqrt(2.0)
        return tuple(octaves)

    def early_halvings(self, freqs: list[float], n_octaves: int) -> int:
        """How often the signal is halved ahead of the highest octave.

        As often as its filters and the halvings that are still to come allow.
        """
        if self.mlx:
            return 0
        by_band = math.ceil(math.log2(0.5 * self.given.sr / self.cutoff(freqs))) - 2
        hop = self.given.hop_length
        by_hop = (hop & -hop).bit_length() - n_octaves
        return max(0, min(by_band, by_hop))

    def window(self, n_fft: int) -> Tensor:
        make = torch.hann_window if self.mlx else torch.ones
        return make(n_fft, dtype=torch.float64, device="cpu")

    def add_halvings(self, count: int) -> tuple[str, ...]:
        stages = [] if not count else [kaiser_sinc(0.5, 31.0, 8.0)] if self.mlx else soxr_stages(count)
        names = [f"halving_{taps.shape[0]}" for taps in stages]
        for name, taps in zip(names, stages):
            if name not in self.tables:
                self.tables[name] = halving(taps)
        return tuple(names)


def _as_real(basis: Tensor) -> Tensor:
    """The complex matrix (rows, bins) as the real one (2 bins, 2 rows) that maps pairs (re, im) to pairs."""
    columns = torch.stack([torch.view_as_real(basis), torch.view_as_real(1j * basis)], 2)  # row, bin, of re or im, pair
    return columns.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
