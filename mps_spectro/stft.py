"""Short-time Fourier transform: torch.stft's signature, any number of leading dimensions, one kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _repeat, _windows
from ._arguments import HALVES, StftCall, stft_call
from ._coverage import resolved, tracing_reason
from ._diagnostics import count_torch_route
from ._ops import call_analysis

_torch_stft = torch.functional.stft


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """Short-time Fourier transform with the signature, values and strides of `torch.stft`.

    Three things differ from torch: `window=None` is a periodic Hann window and not a rectangular one,
    `return_complex=None` means True, and the input may have any number of leading dimensions.

    Real float32 signals run on the fused kernel of their device. float16 and bfloat16 are computed in float32 and give
    complex64. Everything else (float64, complex signals or windows, CPU tensors) is computed by plain torch.
    Gradients flow to the input and to the window, in reverse and in forward mode, to any order.

    Args:
        input: signal (..., T), real or complex.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames; default n_fft // 4.
        win_length: samples of the window; default n_fft. A shorter window is centred in n_fft samples.
        window: (win_length,) on the input's device; default a periodic Hann window.
        center: pad the signal by n_fft // 2 at each end, so that frame m is centred at m * hop_length.
        pad_mode: "reflect", "constant", "replicate" or "circular", used when `center`.
        normalized: multiply by n_fft ** -0.5.
        onesided: return n_fft // 2 + 1 bins instead of n_fft; default True for real input and window.
        return_complex: False gives real and imaginary parts in a last dimension of 2; default True.
        align_to_window: with center=False and win_length < n_fft, let the first frame's window (instead of its n_fft
            samples) begin at the first sample.

    Returns:
        Complex (..., bins, frames), frames = 1 + (T + padding - n_fft) // hop_length, or real (..., bins, frames, 2).
        The bins of one frame are adjacent in memory, as in torch.

    Raises:
        TypeError: an argument of the wrong kind, an integer signal, a sparse tensor.
        ValueError: a value or size that does not fit (the same exception is also a RuntimeError, torch's own type).
    """
    options = (hop_length, win_length, center, pad_mode, normalized, onesided, return_complex, align_to_window)
    key = _repeat.key_of("stft", input, window, n_fft, *options)
    if key is not None and (recipe := _repeat.recipe_of(key)) is not None:
        return recipe.run(input, window)
    call = stft_call(
        input,
        n_fft,
        hop_length,
        win_length,
        window,
        center,
        pad_mode,
        normalized,
        onesided,
        return_complex,
        align_to_window,
    )
    reason = _torch_only(call)
    out = _by_ops(call) if reason is None else _by_torch(call, reason)
    if key is not None and reason is None and call.onesided and call.return_complex and input.dim() <= 2:
        kept = _default_window(call, input.dtype)
        sizes = (call.n_fft, call.hop_length, call.offset, call.pad_mode, call.n_frames, call.normalized)
        _repeat.learn_stft(key, input, kept, *sizes, is_default=window is None)
    if input.dim() == 1:
        return out.squeeze(0)
    return out if input.dim() == 2 else out.unflatten(0, input.shape[:-1])


def _torch_only(call: StftCall) -> str | None:
    """Why torch.stft itself answers, or None where the ops do."""
    if call.signal.is_complex() or (call.window is not None and call.window.is_complex()):
        return "complex signal or window"
    return tracing_reason()


def _by_torch(call: StftCall, reason: str) -> Tensor:
    if not torch.compiler.is_compiling():
        count_torch_route(reason)
    signal, window = call.signal, call.window
    if window is None:
        window = _windows.hann(call.win_length, signal.dtype.to_real(), signal.device)
    elif window.dtype in HALVES:
        window = window.float()
    # the compiler knows torch's function by the name it has at the moment
    function = torch.stft if torch.compiler.is_compiling() else _torch_stft
    out = function(
        signal,
        call.n_fft,
        call.hop_length,
        call.win_length,
        window,
        call.center,
        call.pad_mode,
        call.normalized,
        call.onesided,
        True,
        call.align_to_window or None,
    )
    return out if call.return_complex else torch.view_as_real(out)


def _default_window(call: StftCall, dtype: torch.dtype) -> Tensor:
    if call.window is not None:
        return call.window
    return _windows.hann(call.win_length, dtype, call.signal.device)


def _by_ops(call: StftCall) -> Tensor:
    signal = call.signal
    window = _default_window(call, signal.dtype)
    if window.dtype == torch.float64:
        signal = signal.double()
    return transform(
        signal,
        _windows.full_size(window, call.n_fft),
        call.hop_length,
        call.offset,
        call.pad_mode,
        call.n_frames,
        call.normalized,
        call.onesided,
        call.return_complex,
    )


def transform(
    signal: Tensor,
    window: Tensor,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    normalized: bool,
    onesided: bool,
    return_complex: bool,
) -> Tensor:
    """The transform by our op, with torch's strides.

    Args:
        signal: (B, T) float32 or float64, any strides.
        window: (n_fft,) real.
        offset: padding before the first sample.

    Returns:
        (B, bins, n_frames) complex, or (B, bins, n_frames, 2) real.
    """
    n_fft = window.shape[0]
    scale = n_fft**-0.5 if normalized else 1.0
    signal, window = resolved(signal), resolved(window).to(signal.dtype)
    pairs = call_analysis(signal, window, None, n_fft, hop_length, offset, pad_mode, n_frames, scale, False)
    if onesided and not return_complex:
        return pairs
    # torch makes the gradient of a complex view contiguous: in this layout it is already
    spectrum = torch.view_as_complex(pairs.transpose(1, 2)).transpose(1, 2)
    if not onesided:
        rows = spectrum.transpose(1, 2)
        mirrored = rows[..., 1 : (n_fft + 1) // 2].flip(-1).conj()
        spectrum = torch.cat([rows, mirrored], -1).transpose(1, 2)
    return spectrum if return_complex else torch.view_as_real(spectrum)
