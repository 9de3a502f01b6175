"""Front ends: a peer, this package in plain torch, and this package on its kernels.

The peer of a log-mel spectrogram is torchaudio where it can be imported, else what it computes; that of a preset is the
definition of its project, in torch. The same definitions in float64 are what errors are measured from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .._mel_module import MelModule
from ..dynamic import DynamicMelSpectrogramTransform
from ..mel import LogMelSpectrogramTransform, MelSpectrogramTransform
from .cases import Case
from .comparison import Comparison, Function, Results, Work, differentiated, largest_error, noise, random

_RATE, _FLOOR = 22_050, 1e-5


@dataclass(frozen=True)
class FrontEnd:
    """`make`(case, use_mps_kernels=) is ours, `definition`(signal, window, bank, hop) that of `project`, the peer."""

    project: str
    make: Callable[..., MelModule]
    definition: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    keyshift: float = 0.0


# --- the peers' definitions ------------------------------------------------------------------------------------------


def _spectrum(x: Tensor, window: Tensor, hop: int, **options: Any) -> Tensor:
    return torch.stft(x, window.shape[0], hop, window=window, return_complex=True, **options)


def _log_mel(x: Tensor, window: Tensor, bank: Tensor, hop: int) -> Tensor:
    power = _spectrum(x, window, hop).abs().pow(2.0)
    return torch.matmul(power.transpose(-1, -2), bank.t()).transpose(-1, -2).clamp(min=_FLOOR).log()


def _whisper(x: Tensor, window: Tensor, bank: Tensor, hop: int) -> Tensor:
    log = torch.clamp(bank @ _spectrum(x, window, hop)[..., :-1].abs() ** 2, min=1e-10).log10()
    log = torch.maximum(log, log.amax((-2, -1), keepdim=True) - 8.0)  # the largest of each example
    return (log + 4.0) / 4.0


def _pitch_tracker(spectrum: Tensor, bank: Tensor, eps: float = 0.0, scale: float = 1.0) -> Tensor:
    """RMVPE and FCPE: the magnitudes that the bank has bins for."""
    magnitude = torch.sqrt(spectrum.real.pow(2) + spectrum.imag.pow(2) + eps)
    return torch.log(torch.clamp(bank @ (magnitude[:, : bank.shape[1]] * scale), min=_FLOOR))


def _rmvpe(x: Tensor, window: Tensor, bank: Tensor, hop: int) -> Tensor:
    return _pitch_tracker(_spectrum(x, window, hop), bank)


def _rmvpe_shifted(x: Tensor, window: Tensor, bank: Tensor, hop: int) -> Tensor:
    return _pitch_tracker(_spectrum(x, window, hop), bank, scale=1024 / window.shape[0])


def _fcpe(x: Tensor, window: Tensor, bank: Tensor, hop: int) -> Tensor:
    padding = window.shape[0] - hop
    padded = F.pad(x.unsqueeze(1), (padding // 2, (padding + 1) // 2), mode="reflect").squeeze(1)
    return _pitch_tracker(_spectrum(padded, window, hop, center=False), bank, eps=1e-9)


# --- ours ------------------------------------------------------------------------------------------------------------


def _make_log_mel(case: Case, **options: Any) -> MelModule:
    return LogMelSpectrogramTransform(**_sizes(case), power=2.0, pad_mode="reflect", log_amin=_FLOOR, **options)


def _sizes(case: Case) -> dict[str, Any]:
    return {"sample_rate": _RATE, "n_fft": case.n_fft, "hop_length": case.hop, "n_mels": case.bands}


def _preset(name: str, **overrides: Any) -> Callable[..., MelModule]:
    return lambda case, **options: MelSpectrogramTransform.preset(name, **overrides, **options)


def _make_dynamic(case: Case, **options: Any) -> MelModule:
    return DynamicMelSpectrogramTransform.preset("rmvpe", **options)


_RVC = "RVC-Project/Retrieval-based-Voice-Conversion-WebUI MelSpectrogram"
FRONT_ENDS = {
    "log-mel": FrontEnd("torchaudio MelSpectrogram and log", _make_log_mel, _log_mel),
    "whisper": FrontEnd("openai/whisper log_mel_spectrogram", _preset("whisper", mode="per_example"), _whisper),
    "rmvpe": FrontEnd(_RVC, _preset("rmvpe"), _rmvpe),
    "fcpe": FrontEnd("CNChTu/FCPE MelExtractor", _preset("fcpe"), _fcpe),
    "rmvpe-keyshift-3": FrontEnd(_RVC, _make_dynamic, _rmvpe_shifted, keyshift=3.0),
}


# --- a row -----------------------------------------------------------------------------------------------------------


def compare(case: Case, device: torch.device) -> Comparison:
    """A row of front ends, of noise."""
    front_end = FRONT_ENDS[case.work.removesuffix("-backward")]
    x, window = noise(case, device), torch.hann_window(case.n_fft, device=device)
    plain, fused = (front_end.make(case, use_mps_kernels=kernels).to(device) for kernels in (False, True))
    bank, shift = fused.mel_basis, {"keyshift": front_end.keyshift} if front_end.keyshift else {}
    peer, note = _peer(front_end, case, window, bank)
    functions: dict[str, Function] = {"torch": partial(plain, **shift), "peer": peer, "ours": partial(fused, **shift)}

    def reference(where: torch.device) -> Callable[[Results], float]:
        signal, *tables = (tensor.to(where).double() for tensor in (x[:1], window, bank))
        exact = _work(case, _defined(front_end, case, *tables), signal)()
        return lambda results: largest_error(results, exact)

    makers = {name: partial(_work, case, function, x) for name, function in functions.items()}
    return Comparison(makers, reference, {"peer": note})


def _defined(front_end: FrontEnd, case: Case, window: Tensor, bank: Tensor) -> Function:
    return lambda x: front_end.definition(x, window, bank, case.hop)


def _peer(front_end: FrontEnd, case: Case, window: Tensor, bank: Tensor) -> tuple[Function, str]:
    """The peer, and in words what it is here."""
    definition = _defined(front_end, case, window, bank)
    if front_end is not FRONT_ENDS["log-mel"]:
        return definition, f"{front_end.project}, in torch from its definition"
    try:
        torchaudio = import_module("torchaudio")
        mel = torchaudio.transforms.MelSpectrogram(**_sizes(case)).to(window.device)
    except Exception as error:  # its compiled extension fails to load in many ways
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        return definition, f"{front_end.project}, the same computation in torch; torchaudio itself is not used: {why}"
    return lambda x: mel(x).clamp(min=_FLOOR).log(), f"{front_end.project}, torchaudio {torchaudio.__version__}"


def _work(case: Case, function: Function, x: Tensor) -> Work:
    if not case.work.endswith("backward"):
        return lambda: (function(x),)
    with torch.no_grad():
        out = function(x)
    # the same values for all contenders and rows, in the layout of what it is the gradient of
    grad = torch.empty_like(out).copy_(random(tuple(out.shape[1:]), torch.device("cpu")))
    return differentiated(function, x, grad)
