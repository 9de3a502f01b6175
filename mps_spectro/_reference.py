"""The three ops in plain torch: any float dtype, any device, differentiable to any order in either mode.

The route for what no kernel covers, and the oracle of the tests. With P the padding of the signal, e an optional
constant gain, w the window, s the scale and c_k the bin weights (1, or with `hermitian` 2 between DC and Nyquist):

    analysis    X[k,f] = s c_k sum_n w[n] (P x * e)[f hop + n] exp(-2 pi i k n / n_fft)
    synthesis   its adjoint in x
    correlate   its adjoint in w
"""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PAD_MODES = ("constant", "reflect", "replicate", "circular")

# at most this many in-place adds overlap the frames; denser hops go to col2im
_MOST_SLICES = 64
# frames of this many values at a time in `correlate`
_CHUNK = 1 << 25


def full_length(n_fft: int, hop_length: int, n_frames: int) -> int:
    """Samples under `n_frames` frames."""
    return (n_frames - 1) * hop_length + n_fft if n_frames > 0 else 0


def check_padding(length: int, left: int, right: int, pad_mode: str) -> None:
    """Refuses padding that torch's pad modes do not define.

    Raises:
        ValueError: unknown mode, or more padding than a signal of this length can give.
    """
    if pad_mode not in PAD_MODES:
        raise ValueError(f"pad_mode must be one of {', '.join(PAD_MODES)}, got {pad_mode!r}")
    pad = max(left, right)
    if pad <= 0 or pad_mode == "constant":
        return
    most = {"reflect": length - 1, "circular": length, "replicate": pad if length > 0 else 0}[pad_mode]
    if pad > most:
        raise ValueError(f"pad_mode {pad_mode!r} cannot pad a signal of {length} samples by {left} and {right}")


def padded(x: Tensor, left: int, length: int, pad_mode: str) -> Tensor:
    """`length` samples of the padded signal x (B, T), beginning `left` samples before its first."""
    size = x.shape[1]
    right = max(0, length - left - size)
    check_padding(size, left, right, pad_mode)
    if left or right:
        # slices instead of F.pad: the backward of reflection padding is wrong on MPS beyond 65536 samples
        if pad_mode == "constant":
            x = F.pad(x, (left, right))
        elif pad_mode == "reflect":
            x = torch.cat([x[:, 1 : left + 1].flip(1), x, x[:, size - 1 - right : size - 1].flip(1)], 1)
        elif pad_mode == "replicate":
            x = torch.cat([x[:, :1].expand(-1, left), x, x[:, size - 1 :].expand(-1, right)], 1)
        else:
            x = torch.cat([x[:, size - left :], x, x[:, :right]], 1)
    return x[:, :length]


def unpadded(y: Tensor, left: int, size: int, pad_mode: str) -> Tensor:
    """The adjoint of `padded`: (B, length) to (B, size)."""
    right = max(0, y.shape[1] - left - size)
    check_padding(size, left, right, pad_mode)
    y = F.pad(y, (0, max(0, left + size - y.shape[1])))
    out = y[:, left : left + size]
    if pad_mode == "constant" or not (left or right):
        return out
    head, tail = y[:, :left], y[:, left + size :]
    if pad_mode == "reflect":
        head = F.pad(head.flip(1), (1, size - 1 - left))
        tail = F.pad(tail.flip(1), (size - 1 - right, 1))
    elif pad_mode == "replicate":
        head = F.pad(head.sum(1, keepdim=True), (0, size - 1))
        tail = F.pad(tail.sum(1, keepdim=True), (size - 1, 0))
    else:
        head = F.pad(head, (size - left, 0))
        tail = F.pad(tail, (0, size - right))
    return out + head + tail


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Sums frames (B, n_frames, n_fft) laid `hop_length` apart: (B, full length)."""
    batch, n_frames, n_fft = frames.shape
    length = full_length(n_fft, hop_length, n_frames)
    slices = -(-n_fft // hop_length)
    if slices > _MOST_SLICES and batch and n_frames:
        size, kernel, stride = (1, length), (1, n_fft), (1, hop_length)
        return F.fold(frames.transpose(1, 2), size, kernel, stride=stride).reshape(batch, length)
    rows = frames.new_zeros(batch, n_frames + slices - 1, hop_length)
    for j in range(slices):
        part = frames[:, :, j * hop_length : (j + 1) * hop_length]
        rows[:, j : j + n_frames, : part.shape[2]] += part
    return rows.reshape(batch, (n_frames + slices - 1) * hop_length)[:, :length]


def dense_gain(env: Tensor, n_fft: int, hop_length: int, n_frames: int) -> Tensor:
    """Entry q of the gain for every sample under the frames, from its table (dense, or head | period | tail)."""
    length = full_length(n_fft, hop_length, n_frames)
    if length <= 2 * n_fft + hop_length:
        return env
    head, period, tail = env.split((n_fft, hop_length, n_fft))
    middle = length - 2 * n_fft
    period = period.roll(-n_fft).expand(-(-middle // hop_length), hop_length).reshape(-1)[:middle]
    return torch.cat([head, period, tail])


def _bin_weights(n_fft: int, edge: float, inside: float, like: Tensor) -> Tensor:
    """One weight per bin: `edge` where a bin is its own mirror image (DC and Nyquist), `inside` elsewhere."""
    weights = torch.full((n_fft // 2 + 1,), inside, dtype=like.dtype, device=like.device)
    weights[:: max(1, n_fft // 2) if n_fft % 2 == 0 else n_fft] = edge
    return weights


def _frames(x: Tensor, env: Tensor | None, n_fft: int, hop: int, offset: int, pad_mode: str, n_frames: int) -> Tensor:
    """A view of the padded signal as (B, n_frames, n_fft)."""
    if n_frames == 0:
        return x.new_zeros(x.shape[0], 0, n_fft)
    signal = padded(x, offset, full_length(n_fft, hop, n_frames), pad_mode)
    if env is not None:
        signal = signal * dense_gain(env, n_fft, hop, n_frames)
    return signal.unfold(1, n_fft, hop)


def inverse_frames(spec: Tensor, n_fft: int, scale: float, hermitian: bool) -> Tensor:
    """scale * Re sum_k c_k spec[k, f] exp(+2 pi i k n / n_fft) as (B, n_frames, n_fft)."""
    if spec.numel() == 0:  # MKL refuses an empty batch
        return spec.new_zeros(spec.shape[0], spec.shape[2], n_fft)
    # irfft itself doubles what lies between DC and Nyquist; not every backend ignores the imaginary parts of those two
    inside = scale if hermitian else 0.5 * scale
    weights = torch.stack([_bin_weights(n_fft, scale, inside, spec), _bin_weights(n_fft, 0.0, inside, spec)], 1)
    rows = torch.view_as_complex((spec.transpose(1, 2) * weights).contiguous())
    return torch.fft.irfft(rows, n_fft, dim=2, norm="forward")


def _computable(tensor: Tensor) -> Tensor:
    """Half and bfloat16 as float32: no FFT on the CPU takes them, and elsewhere few sizes."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def analysis(
    x: Tensor,
    window: Tensor,
    env: Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    scale: float,
    hermitian: bool,
) -> Tensor:
    """Signal (B, T) to spectrum (B, n_fft // 2 + 1, n_frames, 2) whose memory is (B, n_frames, bins, 2)."""
    dtype = x.dtype
    x, window = _computable(x), _computable(window)
    frames = _frames(x, env, n_fft, hop_length, offset, pad_mode, n_frames)
    if frames.numel() == 0:
        return x.new_zeros(x.shape[0], n_frames, n_fft // 2 + 1, 2, dtype=dtype).transpose(1, 2)
    rows = torch.view_as_real(torch.fft.rfft(frames * (window * scale), dim=2))
    if hermitian:
        rows = rows * _bin_weights(n_fft, 1.0, 2.0, rows)[:, None]
    # through one dimension, so that dimensions of size 1 have regular strides too
    return rows.to(dtype).contiguous().flatten().view(rows.shape).transpose(1, 2)


def synthesis(
    spec: Tensor,
    window: Tensor,
    env: Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    length: int,
    scale: float,
    hermitian: bool,
) -> Tensor:
    """Spectrum (B, bins, n_frames, 2) to signal (B, length): the adjoint of `analysis`."""
    dtype = spec.dtype
    spec, window = _computable(spec), _computable(window)
    n_frames = spec.shape[2]
    signal = overlap_add(inverse_frames(spec, n_fft, scale, hermitian) * window, hop_length)
    if env is not None:
        signal = signal * dense_gain(env, n_fft, hop_length, n_frames)
    return unpadded(signal, offset, length, pad_mode).to(dtype).contiguous()


def correlate(
    x: Tensor,
    spec: Tensor,
    env: Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    scale: float,
    hermitian: bool,
    inverse: Callable[[Tensor, int, float, bool], Tensor] = inverse_frames,
) -> Tensor:
    """Signal (B, T) and spectrum (B, bins, n_frames, 2) to (n_fft,): the adjoint of `analysis` in its window.

    `inverse` replaces `inverse_frames`.
    """
    dtype = x.dtype
    x, spec = _computable(x), _computable(spec)
    total = x.new_zeros(n_fft)
    # some signals at a time: all frames of all of them are n_fft / hop times the input, twice
    rows = max(1, _CHUNK // max(1, spec.shape[2] * n_fft))
    for part, spectrum in zip(x.split(rows), spec.split(rows)):
        frames = _frames(part, env, n_fft, hop_length, offset, pad_mode, spec.shape[2])
        total = total + (frames * inverse(spectrum, n_fft, scale, hermitian)).sum((0, 1))
    return total.to(dtype)
