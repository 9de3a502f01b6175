"""Types of arguments, for annotations of code that passes them on: `from mps_spectro.typing import WindowLike`."""

from __future__ import annotations

from typing import Callable, Literal

from torch import Tensor

CenterPadMode = Literal["constant", "reflect", "replicate", "circular"]
CenterTailPad = Literal["symmetric", "minimal"]
FilteredOutputScale = Literal["linear", "log", "log10_plus_one", "db"]
ISTFTBackendPolicy = Literal["auto", "metal", "cuda", "host", "torch", "torch_fallback", "mlx_fft"]
LogMelMode = Literal["clamp", "add", "log1p"]
MelMode = Literal["per_example", "torchaudio_compat", "mlx_native"]
MelNorm = Literal["slaney"] | None
MelOutputScale = Literal["linear", "log", "db"]
MelScale = Literal["htk", "slaney"]
STFTOutputLayout = Literal["bfn", "bnf"]
# of win_length, periodic=, dtype= and device=, or of win_length alone
WindowFunction = Callable[..., Tensor]
# a function, a name, or the window itself
WindowLike = WindowFunction | str | Tensor
