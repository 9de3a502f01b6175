"""Calls of torch.stft and torch.istft as public projects write them, in miniature, native and patched.

Sizes are a fraction of the projects'; the spelling of the arguments, the layouts and what happens to the results next
are theirs.
"""

from __future__ import annotations

import math
from typing import Any, Callable

import pytest
import torch
import torch.nn.functional as F
from parity import FORWARD, error, wide
from torch import Tensor

import mps_spectro
from mps_spectro.patch import patch_torch

SITES: dict[str, Callable[[Tensor], Tensor]] = {}


def site(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A call site: takes a stereo batch (2, 2, 4000) and returns what the project goes on with."""
    SITES[function.__name__] = function
    return function


def hann(size: int, like: Tensor, **options: Any) -> Tensor:
    # made on the CPU in float32 everywhere, so that the references use the very same values
    return torch.hann_window(size, **options).to(like)


@site
def demucs_spectro(x: Tensor) -> Tensor:
    *other, length = x.shape
    x = x.reshape(-1, length)
    z = torch.stft(
        x,
        512 * 2,
        128,
        window=hann(512, x),
        win_length=512,
        normalized=True,
        center=True,
        return_complex=True,
        pad_mode="reflect",
    )
    _, freqs, frame = z.shape
    return z.view(*other, freqs, frame)


@site
def demucs_ispectro(x: Tensor) -> Tensor:
    z = demucs_spectro(x)
    *other, freqs, frames = z.shape
    n_fft = 2 * freqs - 2
    z = z.view(-1, freqs, frames)
    win_length = n_fft // 2
    y = torch.istft(
        z, n_fft, 128, window=hann(win_length, z.real), win_length=win_length, normalized=True, length=4000, center=True
    )
    return y.view(*other, y.shape[-1])


@site
def roformer_masked(x: Tensor) -> Tensor:
    arguments = {"n_fft": 512, "hop_length": 128, "win_length": 512, "normalized": False}
    window = hann(512, x)
    spectrum = torch.stft(x.reshape(-1, x.shape[-1]), **arguments, window=window, return_complex=True)
    pairs = torch.view_as_real(spectrum).view(2, 2, 257, -1, 2)
    pairs = pairs.permute(0, 2, 1, 3, 4).reshape(2, 514, -1, 2)  # frequencies and channels together
    mask = torch.view_as_complex(torch.stack([pairs[..., 0].sigmoid(), pairs[..., 1].tanh()], -1))
    masked = torch.view_as_complex(pairs.contiguous()) * mask
    masked = masked.view(2, 257, 2, -1).permute(0, 2, 1, 3).reshape(4, 257, -1)
    return torch.istft(masked, **arguments, window=window, return_complex=False)


@site
def roformer_multi_resolution(x: Tensor) -> Tensor:
    values = []
    for size in (1024, 512, 128):
        z = torch.stft(
            x.flatten(0, 1),
            n_fft=max(size, 512),
            win_length=size,
            return_complex=True,
            window=hann(size, x),
            hop_length=147,
        )
        values.append(z.abs().mean((1, 2)))
    return torch.stack(values)


@site
def mel_band_roformer_length(x: Tensor) -> Tensor:
    window = hann(512, x)
    z = torch.stft(x[:, 0], 512, 128, window=window, return_complex=True)
    return torch.istft(z, 512, 128, window=window, return_complex=False, length=x.shape[-1])


@site
def mdx_net_pairs(x: Tensor) -> Tensor:
    window = hann(384, x, periodic=True)
    z = torch.stft(x.reshape(-1, 4000), n_fft=384, hop_length=96, window=window, center=True, return_complex=False)
    z = z.permute(0, 3, 1, 2).reshape(2, 2, 2, 193, -1).reshape(2, 4, 193, -1)
    z = F.pad(z[..., :160, :], (0, 0, 0, 33)).reshape(2, 2, 2, 193, -1).reshape(-1, 2, 193, z.shape[-1])
    z = z.permute(0, 2, 3, 1)
    z = z[..., 0] + z[..., 1] * 1.0j
    return torch.istft(z, n_fft=384, hop_length=96, window=window, center=True).reshape(2, 2, -1)


@site
def tfc_tdf(x: Tensor) -> Tensor:
    window = hann(512, x)
    z = torch.stft(x.flatten(0, 1), n_fft=512, hop_length=64, window=window, center=True, return_complex=False)
    real, imag = z.permute(0, 3, 1, 2).unbind(1)
    return torch.istft(real + 1.0j * imag, n_fft=512, hop_length=64, window=window, center=True)


@site
def scnet_no_window(x: Tensor) -> Tensor:
    config = {"n_fft": 512, "hop_length": 128, "win_length": 512, "center": True, "normalized": True}
    z = torch.stft(x.reshape(-1, 4000), **config, return_complex=True)
    pairs = torch.view_as_real(z).permute(0, 3, 1, 2).reshape(2, 4, 257, -1)
    z = pairs.reshape(4, 2, 257, -1).permute(0, 2, 3, 1).contiguous()
    return torch.istft(torch.view_as_complex(z), **config)


@site
def rmvpe_keyshift(x: Tensor) -> Tensor:
    columns = []
    for key in (-3, 0, 1, 4):
        factor = 2 ** (key / 12)
        n_fft_new = round(256 * factor)
        win_length_new = round(256 * factor)
        z = torch.stft(
            x[:, 0],
            n_fft=n_fft_new,
            hop_length=round(40 * 1.0),
            win_length=win_length_new,
            window=hann(win_length_new, x),
            center=True,
            return_complex=True,
        )
        magnitude = z.abs()
        resize = magnitude.size(1)
        if resize < 129:
            magnitude = F.pad(magnitude, (0, 0, 0, 129 - resize))
        columns.append(magnitude[:, :129, :100] * 256 / win_length_new)
    return torch.cat(columns, 1)


@site
def fcpe_own_padding(x: Tensor) -> Tensor:
    left, right = (256 - 40) // 2, max((256 - 40 + 1) // 2, 256 - 4000 - (256 - 40) // 2)
    y = F.pad(x[:, 0].unsqueeze(1), (left, right), mode="reflect").squeeze(1)
    z = torch.stft(
        y,
        256,
        hop_length=40,
        win_length=256,
        window=hann(256, x),
        center=False,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=True,
    )
    return torch.sqrt(z.real.pow(2) + z.imag.pow(2) + 1e-9)


@site
def bigvgan_mel(x: Tensor) -> Tensor:
    padding = (1024 - 256) // 2
    y = F.pad(x[:, 1].unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    z = torch.stft(
        y,
        1024,
        hop_length=256,
        win_length=1024,
        window=hann(1024, x),
        center=False,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=True,
    )
    return torch.sqrt(torch.view_as_real(z).pow(2).sum(-1) + 1e-9)


@site
def bigvgan_discriminator_no_window(x: Tensor) -> Tensor:
    values = []
    for n_fft, hop_length, win_length in ((256, 30, 150), (512, 60, 300), (128, 12, 60)):
        y = F.pad(x[:, :1], ((n_fft - hop_length) // 2,) * 2, mode="reflect").squeeze(1)
        z = torch.stft(y, n_fft=n_fft, hop_length=hop_length, win_length=win_length, center=False, return_complex=True)
        values.append(torch.norm(torch.view_as_real(z), p=2, dim=-1).mean(-1))
    return torch.cat(values, 1)


@site
def bigvgan_loss(x: Tensor) -> Tensor:
    wav = x.reshape(-1, 4000)
    sizes = (32, 64, 128, 256, 512, 1024, 2048)
    spectra = [torch.stft(wav, n_fft=w, hop_length=w // 4, window=hann(w, x), return_complex=True) for w in sizes]
    return torch.stack([z.abs().clamp(1e-5).pow(2).log10().mean((1, 2)) for z in spectra])


@site
def gpt_sovits_spectrogram(x: Tensor) -> Tensor:
    y = F.pad(x[:, 0].unsqueeze(1), (384, 384), mode="reflect").squeeze(1)
    z = torch.stft(
        y,
        1024,
        hop_length=256,
        win_length=1024,
        window=hann(1024, y),
        center=False,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=False,
    )
    return torch.sqrt(z.pow(2).sum(-1) + 1e-8)


@site
def kokoro_istftnet(x: Tensor) -> Tensor:
    window = hann(20, x, periodic=True)
    z = torch.stft(x[:, 0], 20, 5, 20, window=window, return_complex=True)
    magnitude, phase = torch.abs(z), torch.angle(z)
    y = torch.istft(magnitude * torch.exp(phase * 1j), 20, 5, 20, window=window)
    return y.unsqueeze(-2)


@site
def cosyvoice_positional(x: Tensor) -> Tensor:
    window = hann(16, x)
    z = torch.stft(x[:, 0], 16, 4, 16, window=window, return_complex=True)
    z = torch.view_as_real(z)
    magnitude = torch.clip(z[..., 0].abs() + 0.1, max=100.0)
    real, imag = magnitude * torch.cos(z[..., 1]), magnitude * torch.sin(z[..., 1])
    return torch.istft(torch.complex(real, imag), 16, 4, 16, window=window)


@site
def vocos_center(x: Tensor) -> Tensor:
    window = hann(256, x)
    z = torch.stft(x[:, 0], n_fft=256, hop_length=64, window=window, return_complex=True)
    return torch.istft(z, 256, 64, 256, window, center=True)


@site
def audiotools_stft(x: Tensor) -> Tensor:
    window = hann(512, x).sqrt()
    right = math.ceil(4000 / 128) * 128 - 4000
    y = F.pad(x, (0, right), "reflect")
    z = torch.stft(
        y.reshape(-1, y.shape[-1]), n_fft=512, hop_length=128, window=window, return_complex=True, center=True
    )
    z = z.reshape(2, 2, *z.shape[1:])
    return torch.istft(z.reshape(4, *z.shape[2:]), n_fft=512, hop_length=128, window=window, length=4000, center=True)


@site
def auraloss(x: Tensor) -> Tensor:
    z = torch.stft(x[:, 0], 512, 50, 240, hann(240, x), return_complex=True)
    return torch.sqrt(torch.clamp((z.real**2) + (z.imag**2), min=1e-8))


@site
def deepfilternet_istft_of_padded(x: Tensor) -> Tensor:
    window = hann(320, x)
    z = torch.stft(x[:, 0], 320, 160, window=window, normalized=True, return_complex=True)
    rows = F.pad(torch.view_as_real(z.transpose(1, 2)).contiguous(), (0, 0, 0, 0, 0, 2))
    z = torch.view_as_complex(rows).transpose(1, 2)
    return torch.istft(z, n_fft=320, hop_length=160, window=window, normalized=True)


@site
def dnsmos_odd_n_fft(x: Tensor) -> Tensor:
    return torch.stft(x[:, 0], n_fft=321, hop_length=160, window=hann(321, x), return_complex=True).abs().pow(2)


@site
def nemo_preprocessor(x: Tensor) -> Tensor:
    z = torch.stft(
        x[:, 0],
        n_fft=512,
        hop_length=160,
        win_length=400,
        center=True,
        window=hann(400, x, periodic=False).to(dtype=torch.float),
        return_complex=True,
        pad_mode="constant",
    )
    return torch.sqrt(torch.view_as_real(z).pow(2).sum(-1) + 2**-24)


@site
def nemo_input_keyword(x: Tensor) -> Tensor:
    window = hann(256, x)
    z = torch.stft(input=x.flatten(0, 1), n_fft=256, hop_length=64, window=window, return_complex=True)
    return torch.istft(input=z, n_fft=256, hop_length=64, window=window, length=4000)


@site
def hifigan_no_window(x: Tensor) -> Tensor:
    z = torch.view_as_real(torch.stft(x[:, 0], n_fft=256, hop_length=64, win_length=256, return_complex=True))
    return torch.istft(torch.view_as_complex(z * 1.5), n_fft=256, hop_length=64, win_length=256)


@site
def whisper_log_mel(x: Tensor) -> Tensor:
    window = hann(400, x)
    batch = torch.stft(x[:, 0], 400, 160, window=window, return_complex=True)[..., :-1].abs() ** 2
    single = torch.stft(x[0, 0], 400, 160, window=window, return_complex=True)[..., :-1].abs() ** 2
    return batch + single


@site
def speechbrain_positional(x: Tensor) -> Tensor:
    y = x.transpose(1, 2).transpose(1, 2).reshape(-1, 4000)
    z = torch.stft(y, 400, 160, 400, hann(400, x), True, "constant", False, True, return_complex=True)
    pairs = torch.view_as_real(z).reshape(2, 2, 201, -1, 2).permute(0, 3, 2, 4, 1)  # batch, time, bins, pair, channel
    back = pairs.permute(0, 4, 2, 1, 3).reshape(-1, 201, pairs.shape[1], 2)
    return torch.istft(
        input=torch.complex(back[..., 0], back[..., 1]),
        n_fft=400,
        hop_length=160,
        win_length=400,
        window=hann(400, x),
        center=True,
        onesided=True,
        length=4000,
    )


@site
def nnaudio_two_sided(x: Tensor) -> Tensor:
    z = torch.stft(
        x[:, 0], 256, hop_length=64, window=hann(256, x), onesided=False, pad_mode="constant", return_complex=False
    )
    return torch.sqrt(z[..., 0].pow(2) + z[..., 1].pow(2))


@site
def open_unmix(x: Tensor) -> Tensor:
    y = x.view(-1, x.shape[-1])
    z = torch.view_as_real(
        torch.stft(
            y,
            n_fft=512,
            hop_length=128,
            window=hann(512, x),
            center=True,
            normalized=False,
            onesided=True,
            pad_mode="reflect",
            return_complex=True,
        )
    )
    z = z.view((2, 2) + z.shape[-3:])
    y = torch.istft(
        torch.view_as_complex(z.reshape(-1, *z.shape[-3:])),
        n_fft=512,
        hop_length=128,
        window=hann(512, x),
        center=True,
        normalized=False,
        onesided=True,
        length=4000,
    )
    return y.reshape(2, 2, -1)


@site
def torchgate(x: Tensor) -> Tensor:
    window = hann(256, x)
    z = torch.stft(
        x[:, 0],
        n_fft=256,
        hop_length=64,
        win_length=256,
        return_complex=True,
        pad_mode="constant",
        center=True,
        window=window,
    )
    z = z * (z.abs() > 0.5)
    return torch.istft(z, n_fft=256, hop_length=64, win_length=256, center=True, window=window)


@site
def stoi_positional(x: Tensor) -> Tensor:
    return torch.stft(x[:, 0], 512, 128, 256, hann(256, x), center=False, return_complex=False).square().sum(-1)


@site
def tensor_methods(x: Tensor) -> Tensor:
    z = x[0].stft(128, 32, window=hann(128, x), return_complex=True)
    return z.istft(128, 32, window=hann(128, x), length=3999)


@site
def silence_log_magnitude(x: Tensor) -> Tensor:
    z = torch.stft(x[:, 0] * 0, 128, 32, window=hann(128, x), return_complex=True)
    return torch.log(torch.abs(z) + 1e-5)


@pytest.mark.filterwarnings("ignore:.*window was not provided", "ignore:.*return_complex=False is deprecated")
@pytest.mark.parametrize("name", SITES)
def test_call_site(route: Any, name: str) -> None:
    x = torch.randn(2, 2, 4000) * 0.3
    native = SITES[name](x)
    # float64 throughout, the windows with it: hann() makes them like the signal
    expected = SITES[name](wide(x))
    with patch_torch():
        mps_spectro.diagnostics(reset=True)
        got = SITES[name](x.to(route.device))
        if route.kernels:  # none of them is left to torch
            assert mps_spectro.diagnostics()["torch_route"] == {}
    assert got.dtype == native.dtype and got.stride() == native.stride()
    assert error(got, expected) <= max(2 * FORWARD, 2 * error(native, expected))


@pytest.mark.filterwarnings("ignore:.*window was not provided", "ignore:.*return_complex=False is deprecated")
@pytest.mark.parametrize("name", ["demucs_ispectro", "roformer_masked", "kokoro_istftnet", "auraloss", "bigvgan_loss"])
def test_call_site_trains(route: Any, name: str) -> None:
    x = torch.randn(2, 2, 4000) * 0.3
    grads = []
    for values, on in ((x.to(route.device), True), (x, False), (wide(x), False)):
        leaf = values.clone().requires_grad_()
        if on:
            with patch_torch():
                SITES[name](leaf).square().mean().backward()
        else:
            SITES[name](leaf).square().mean().backward()
        grads.append(leaf.grad)
    got, native, expected = grads
    # gradients of a logarithm near silence are ill-conditioned: what rounding makes of them is a matter of luck
    assert error(got, expected) <= max(2e-6, 4 * error(native, expected))
