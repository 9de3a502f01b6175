"""torch.stft and torch.istft on fused Metal shaders: a drop-in for PyTorch on Apple Silicon, NVIDIA and CPU.

`patch_torch()` makes a program that was written for torch use them; `stft` and `istft` can be called directly.
"""

from ._backend import use_backend
from ._diagnostics import diagnostics
from .chroma import chroma_stft
from .descriptors import spectral_bandwidth, spectral_centroid, spectral_contrast, spectral_rolloff
from .dynamic import DynamicMelSpectrogramTransform, dynamic_mel_spectrogram, dynamic_spectrogram
from .filters import amplitude_to_db, melscale_fbanks
from .framewise import rms, zero_crossing_rate
from .log_triangular import log_triangular_fbanks
from .mel import (
    CompatMelSpectrogramTransform,
    LogMelSpectrogramTransform,
    MelSpectrogramTransform,
    mel_spectrogram,
)
from .patch import patch_torch

# after everything that imports these modules: the functions take the names that their modules had on the package
from .istft import istft  # isort: skip
from .stft import stft  # isort: skip

__version__ = "0.1.0"
__all__ = [
    "CompatMelSpectrogramTransform",
    "DynamicMelSpectrogramTransform",
    "LogMelSpectrogramTransform",
    "MelSpectrogramTransform",
    "__version__",
    "amplitude_to_db",
    "chroma_stft",
    "diagnostics",
    "dynamic_mel_spectrogram",
    "dynamic_spectrogram",
    "istft",
    "log_triangular_fbanks",
    "mel_spectrogram",
    "melscale_fbanks",
    "patch_torch",
    "rms",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_contrast",
    "spectral_rolloff",
    "stft",
    "use_backend",
    "zero_crossing_rate",
]
