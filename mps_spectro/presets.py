"""Front ends of well-known projects as arguments of the mel modules; see `MelSpectrogramTransform.preset`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Mapping, NamedTuple


class Preset(NamedTuple):
    """Where a front end is defined, and the arguments of `MelSpectrogramTransform` that reproduce it."""

    source: str
    arguments: Mapping[str, Any]


_WHISPER = {
    "sample_rate": 16000,
    "n_fft": 400,
    "hop_length": 160,
    "n_mels": 80,
    "pad_mode": "reflect",
    "power": 2.0,
    "norm": "slaney",
    "mel_scale": "slaney",
    "convention": "librosa",
    "drop_last_frame": True,
    "output_scale": "log",
    "log_base": 10.0,
    "log_amin": 1e-10,
    "dynamic_range": 8.0,
    "affine": (0.25, 1.0),
    "mode": "torchaudio_compat",  # one maximum for the batch
}
_HIFIGAN = {
    "sample_rate": 22050,
    "n_fft": 1024,
    "hop_length": 256,
    "n_mels": 80,
    "f_min": 0.0,
    "f_max": 8000.0,
    "pad_mode": "reflect",
    "padding": (1024 - 256) // 2,
    "power": 1.0,
    "magnitude_eps": 1e-9,
    "norm": "slaney",
    "mel_scale": "slaney",
    "convention": "librosa",
    "output_scale": "log",
    "log_amin": 1e-5,
}
_RMVPE = {
    "sample_rate": 16000,
    "n_fft": 1024,
    "hop_length": 160,
    "n_mels": 128,
    "f_min": 30.0,
    "f_max": 8000.0,
    "pad_mode": "reflect",
    "power": 1.0,
    "norm": "slaney",
    "mel_scale": "htk",
    "convention": "librosa",
    "output_scale": "log",
    "log_amin": 1e-5,
}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "torchaudio": Preset(
            "torchaudio.transforms.MelSpectrogram(), defaults",
            {
                "sample_rate": 16000,
                "n_fft": 400,
                "hop_length": 200,
                "pad_mode": "reflect",
                "power": 2.0,
                "output_scale": "linear",
            },
        ),
        "librosa": Preset(
            "librosa.feature.melspectrogram(), defaults of version 0.10 and later",
            {
                "sample_rate": 22050,
                "n_fft": 2048,
                "hop_length": 512,
                "power": 2.0,
                "norm": "slaney",
                "mel_scale": "slaney",
                "convention": "librosa",
                "output_scale": "linear",
            },
        ),
        "whisper": Preset("openai/whisper whisper/audio.py log_mel_spectrogram; n_mels=128 for large-v3", _WHISPER),
        "rmvpe": Preset("RVC-Project/Retrieval-based-Voice-Conversion-WebUI infer/lib/rmvpe.py MelSpectrogram", _RMVPE),
        "fcpe": Preset(
            "CNChTu/FCPE torchfcpe/mel_extractor.py MelExtractor",
            {**_RMVPE, "f_min": 0.0, "mel_scale": "slaney", "padding": "same", "magnitude_eps": 1e-9},
        ),
        "hifigan": Preset("jik876/hifi-gan meldataset.py mel_spectrogram, config_v1.json", _HIFIGAN),
        "bigvgan": Preset(
            "NVIDIA/BigVGAN meldataset.py mel_spectrogram, bigvgan_v2_24khz_100band_256x",
            {**_HIFIGAN, "sample_rate": 24000, "n_mels": 100, "f_max": 12000.0},
        ),
        "nemo": Preset(
            "NVIDIA/NeMo asr/parts/preprocessing/features.py FilterbankFeatures, 80 bands, n_fft 512; "
            "without dither and without padding of the result to a multiple of 16 frames",
            {
                "sample_rate": 16000,
                "n_fft": 512,
                "win_length": 400,
                "hop_length": 160,
                "n_mels": 80,
                "pad_mode": "constant",
                "power": 2.0,
                "norm": "slaney",
                "mel_scale": "slaney",
                "convention": "librosa",
                "periodic": False,
                "preemphasis": 0.97,
                "drop_last_frame": True,  # NeMo counts T // hop_length frames as valid
                "output_scale": "log",
                "log_mode": "add",
                "log_amin": 2.0**-24,
                "normalize": "per_feature",
            },
        ),
    }
)
