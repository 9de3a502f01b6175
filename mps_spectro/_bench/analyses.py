"""Descriptors and the constant-Q transform: this package in plain torch, librosa on the CPU, and this package.

librosa answers on the CPU whatever the device, so that only its wall time says anything. Errors are measured from this
package's own functions in float64 and plain torch; librosa's, which transforms in float64 whatever it is given, is how
far the two are apart.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, Callable, Mapping

import torch
from torch import Tensor

from .._backend import use_backend
from ..chroma import chroma_stft
from ..cqt import HybridCQTTransform, hybrid_cqt
from ..descriptors import spectral_bandwidth, spectral_centroid, spectral_contrast, spectral_rolloff
from ..features import SpectralFeatureTransform, spectral_features
from ..mfcc import mfcc
from .cases import Case
from .comparison import Comparison, Results, Work, largest_error, noise

Analysis = Callable[[Tensor], Results]
Librosa = Callable[[Any, Any], list[Any]]  # the package and a signal to its results

_RATE = 22_050
_LOWEST = 23.12465141947715
_LONGEST = 1_000_000  # samples that librosa is given: some seconds of work
# rolloff is left out of the error: it is the number of a bin, and the last digit of a sum chooses it
_SEPARATE = (chroma_stft, spectral_centroid, spectral_bandwidth, spectral_contrast, mfcc, spectral_rolloff)


def compare_features(case: Case, device: torch.device) -> Comparison:
    """Six descriptors of a signal, together from one spectrum; "separate" are ours, one after another."""
    names, shape = [function.__name__ for function in _SEPARATE], {"n_fft": case.n_fft, "hop_length": case.hop}
    sizes: dict[str, Any] = {"sample_rate": _RATE, **shape}
    bundle = SpectralFeatureTransform(include=names, **sizes).to(device)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    functions: dict[str, Analysis] = {
        "separate": lambda x: tuple(function(x, **sizes) for function in _SEPARATE),
        "compiled": _values(bundle.get_compiled(backend=backend)),
        "ours": _values(bundle),
    }

    def by_librosa(librosa: Any, y: Any) -> list[Any]:
        first = librosa.feature.chroma_stft(y=y, sr=_RATE, tuning=0.0, **shape)
        return [first, *(getattr(librosa.feature, name)(y=y, sr=_RATE, **shape) for name in names[1:])]

    exact = _values(partial(spectral_features, include=names[:-1], **sizes))
    notes = {"separate": "six functions of this package", "compiled": f"ours, torch.compile(backend={backend!r})"}
    return _comparison(noise(case, device), functions, by_librosa, exact, notes)


def compare_cqt(case: Case, device: torch.device) -> Comparison:
    """The hybrid constant-Q transform of a recognizer of chords: eight octaves from F sharp 0, 36 bins each."""
    given: dict[str, Any] = {"sr": _RATE, "hop_length": case.hop, "fmin": _LOWEST, "n_bins": case.bands}
    given["bins_per_octave"] = 36
    module = HybridCQTTransform(**given).to(device)
    return _comparison(
        noise(case, device),
        {"ours": lambda x: (module(x),)},
        lambda librosa, y: [librosa.hybrid_cqt(y, tuning=0.0, **given)],
        lambda x: (hybrid_cqt(x, **given),),
    )


def _values(bundle: Callable[[Tensor], Mapping[str, Tensor]]) -> Analysis:
    return lambda x: tuple(bundle(x).values())


def _comparison(
    x: Tensor,
    functions: dict[str, Analysis],
    by_librosa: Librosa,
    exact: Analysis,
    notes: Mapping[str, str] | None = None,
) -> Comparison:
    """`functions` holds "ours" last; torch and librosa are put before it."""
    *others, ours = functions

    def plain(x: Tensor) -> Results:
        with use_backend("torch"):
            return functions[ours](x)

    def librosa() -> Work:
        if x.numel() > _LONGEST:
            raise RuntimeError(f"left out: more than {_LONGEST} samples")
        try:
            package = import_module("librosa")
        except ImportError as error:
            raise RuntimeError(f"not installed: {error}") from None
        y = x.cpu().numpy()
        return lambda: tuple(map(torch.from_numpy, by_librosa(package, y)))

    def reference(where: torch.device) -> Callable[[Results], float]:
        with use_backend("torch"):
            wide = exact(x[:1].to(where).double())
        return lambda results: largest_error(results, wide)

    def work(function: Analysis) -> Work:
        return lambda: function(x)

    makers = {"torch": partial(work, plain), **{name: partial(work, functions[name]) for name in others}}
    return Comparison({**makers, "librosa": librosa, ours: partial(work, functions[ours])}, reference, notes or {})
