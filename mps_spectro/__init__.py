"""torch.stft and torch.istft on fused Metal shaders: a drop-in for PyTorch on Apple Silicon, NVIDIA and CPU.

`patch_torch()` makes a program that was written for torch use them; `stft` and `istft` can be called directly. Mel,
MFCC, constant-Q, onset and chroma front ends and spectral descriptors stand on the same kernels, as functions and
modules.
"""

from . import audio
from ._backend import use_backend
from ._diagnostics import diagnostics
from .chroma import chroma_stft
from .compile_cache import RepeatedShapeCompileCache
from .cqt import HybridCQTTransform, hybrid_cqt
from .descriptors import spectral_bandwidth, spectral_centroid, spectral_contrast, spectral_rolloff
from .dynamic import DynamicMelSpectrogramTransform, dynamic_mel_spectrogram, dynamic_spectrogram
from .features import SpectralFeatureTransform, spectral_features
from .fft_params import make_window, resolve_fft_params
from .filtered import FilteredSpectrogramTransform, filtered_spectrogram
from .filters import amplitude_to_db, melscale_fbanks
from .framewise import rms, zero_crossing_rate
from .log_triangular import log_triangular_fbanks
from .madmom import madmom_log_spectrogram, save_log_spectrogram
from .mel import (
    CompatMelSpectrogramTransform,
    LogMelSpectrogramTransform,
    MelSpectrogramTransform,
    mel_spectrogram,
)
from .mfcc import MFCCTransform, dct_matrix, mfcc
from .onset import onset_strength, onset_strength_multi
from .patch import patch_torch
from .spectral_diff import positive_spectral_diff
from .transform import SpectralTransform, get_transform

# after everything that imports these modules: the functions take the names that their modules had on the package
from .istft import istft  # isort: skip
from .stft import stft  # isort: skip

__version__ = "0.1.0"
__all__ = [
    "CompatMelSpectrogramTransform",
    "DynamicMelSpectrogramTransform",
    "FilteredSpectrogramTransform",
    "HybridCQTTransform",
    "LogMelSpectrogramTransform",
    "MFCCTransform",
    "MelSpectrogramTransform",
    "RepeatedShapeCompileCache",
    "SpectralFeatureTransform",
    "SpectralTransform",
    "__version__",
    "amplitude_to_db",
    "audio",
    "chroma_stft",
    "dct_matrix",
    "diagnostics",
    "dynamic_mel_spectrogram",
    "dynamic_spectrogram",
    "filtered_spectrogram",
    "get_transform",
    "hybrid_cqt",
    "istft",
    "log_triangular_fbanks",
    "madmom_log_spectrogram",
    "make_window",
    "mel_spectrogram",
    "melscale_fbanks",
    "mfcc",
    "onset_strength",
    "onset_strength_multi",
    "patch_torch",
    "positive_spectral_diff",
    "resolve_fft_params",
    "rms",
    "save_log_spectrogram",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_contrast",
    "spectral_features",
    "spectral_rolloff",
    "stft",
    "use_backend",
    "zero_crossing_rate",
]
