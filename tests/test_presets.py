"""Each preset against the definition of its project in float64, or against the library itself."""

from __future__ import annotations

import front_end_cases as cases
import pytest
import torch
from conftest import Route
from torchaudio_stub import import_torchaudio

from mps_spectro import LogMelSpectrogramTransform, MelSpectrogramTransform
from mps_spectro.presets import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_each_preset_names_its_source_and_is_tested() -> None:
    assert set(PRESETS) == {*cases.PRESET_REFERENCES, "torchaudio", "librosa"}
    for name, preset in PRESETS.items():
        assert preset.source, name
        with pytest.raises(TypeError):
            PRESETS[name] = preset  # type: ignore[index]


@pytest.mark.parametrize("name", list(cases.PRESET_REFERENCES))
def test_projects(route: Route, name: str) -> None:
    module = LogMelSpectrogramTransform.preset(name).to(route.device)
    for length in (6400, 8111):
        x = 0.3 * cases.noise(2, length, seed=length)
        expected = cases.PRESET_REFERENCES[name](x)
        got = module(x.to(route.device))
        assert cases.absolute(got, expected) <= cases.LOGARITHMIC
        alone = module(x[1].to(route.device))
        if name != "whisper":  # whose floor is that of the batch
            assert cases.absolute(alone, expected[1]) <= cases.LOGARITHMIC
        assert torch.equal(MelSpectrogramTransform.preset(name).to(route.device)(x.to(route.device)), got)


def test_whisper_with_its_floor_in_reach(route: Route) -> None:
    x = torch.cat([cases.noise(1, 8000), 1e-4 * cases.noise(1, 8000)])
    x[:, 4000:] = 0.0
    for n_mels in (80, 128):
        expected = cases.whisper(x, n_mels)
        got = LogMelSpectrogramTransform.preset("whisper", n_mels=n_mels).to(route.device)(x.to(route.device))
        assert got.shape == (2, n_mels, 50)
        assert cases.absolute(got, expected) <= cases.LOGARITHMIC
        assert got.min().item() == pytest.approx(got.max().item() - 2.0)


def test_nemo_of_one_frame_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        LogMelSpectrogramTransform.preset("nemo")(torch.zeros(1, 200))


def test_torchaudio(route: Route) -> None:
    torchaudio = import_torchaudio()
    x = cases.noise(2, 8000)
    expected = torchaudio.transforms.MelSpectrogram().double()(x.double())
    got = MelSpectrogramTransform.preset("torchaudio").to(route.device)(x.to(route.device))
    assert cases.relative(got, expected) <= cases.LINEAR
    log = LogMelSpectrogramTransform.preset("torchaudio", log_amin=1e-3).to(route.device)(x.to(route.device))
    assert cases.absolute(log, expected.clamp(min=1e-3).log()) <= cases.LOGARITHMIC


def test_librosa(route: Route) -> None:
    librosa = pytest.importorskip("librosa")
    x = cases.noise(2, 8000)
    mel = librosa.feature.melspectrogram(y=x.double().numpy(), sr=22050, dtype="float64")
    module = MelSpectrogramTransform.preset("librosa").to(route.device)
    assert cases.relative(module(x.to(route.device)), torch.from_numpy(mel)) <= cases.LINEAR
    db = torch.from_numpy(librosa.power_to_db(mel[0], ref=1.0, top_db=80.0))
    assert cases.absolute(module(x[0].to(route.device), to_db=True), db) <= cases.LOGARITHMIC


def test_arguments_may_differ() -> None:
    module = LogMelSpectrogramTransform.preset("hifigan", n_mels=100, sample_rate=24000, f_max=12000.0)
    x = 0.3 * cases.noise(1, 6000)
    assert torch.equal(module(x), LogMelSpectrogramTransform.preset("bigvgan")(x))
