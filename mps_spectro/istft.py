"""Inverse short-time Fourier transform: torch.istft's signature with a few options more, one kernel."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from . import _arguments, _repeat, _windows
from ._arguments import ArgumentError, IstftCall, choice, flag, istft_call
from ._coverage import differentiates, resolved, tracing_reason
from ._diagnostics import count_torch_route
from ._envelope import LOWEST, envelope, nola_holds, reciprocal_envelope
from ._ops import call_synthesis

_torch_istft = torch.functional.istft


def istft(
    input: Tensor,
    n_fft: int | None = None,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
    *,
    torch_like: bool = False,
    safety: str = "auto",
    kernel_dtype: str = "float32",
    kernel_layout: str = "auto",
    long_mode_strategy: str = "custom",
    allow_fused: bool = True,
) -> Tensor:
    """Inverse short-time Fourier transform with the signature and values of `torch.istft`.

    Four things differ from torch: `window=None` is a periodic Hann window and not a rectangular one, n_fft may be left
    out, samples that no window reaches (an envelope below 1e-11) are 0 instead of an error unless `torch_like` or
    `safety` ask for it, and the input may have any number of leading dimensions.

    complex64 spectra run on the fused kernel of their device, complex32 is computed as complex64, and everything else
    (complex128, complex windows, CPU tensors) by plain torch. Imaginary parts at DC and Nyquist do not count, as in
    torch. Gradients flow to the spectrum and to the window, in reverse and in forward mode, to any order.

    Args:
        input: spectrum (..., F, N), complex, N frames of F bins. The layout `stft` returns and the contiguous one are
            both read in place.
        n_fft: size of the Fourier transform; default 2 * (F - 1), or F with onesided=False. An odd n_fft of a
            one-sided spectrum must be given.
        hop_length: samples between frames; default n_fft // 4; at most win_length.
        win_length: samples of the window; default n_fft. A shorter window is centred in n_fft samples.
        window: (win_length,) on the input's device; default a periodic Hann window.
        center: the frames were centred: leave out the n_fft // 2 samples of padding at each end.
        normalized: the spectrum was multiplied by n_fft ** -0.5.
        onesided: F is n_fft // 2 + 1 and not n_fft; default whatever F says.
        length: samples to return; zeros (and a warning) beyond the last frame. Default: all that frames cover.
        return_complex: complex signal of a two-sided spectrum.
        torch_like: raise torch's error where the envelope falls below 1e-11. Not checked inside `torch.compile`, as in
            torch.
        safety: "always" raises that error whatever torch_like says, "off" never looks, "auto" leaves it to torch_like.
            The verdict is kept per window content, hop and span, so the check does not wait for the device twice.
        kernel_dtype: "float32"; "float16" returns half precision; "mixed" returns float32. Frames stay in float32
            registers from the transform to the sum in every one of them, so there is no loss beyond the output's own
            dtype. Gradients are computed in float32 and arrive in the dtype of the spectrum.
        kernel_layout, long_mode_strategy, allow_fused: accepted for compatibility; every value gives the same numbers.

    Returns:
        Signal (..., length), contiguous.

    Raises:
        TypeError: an argument of the wrong kind, a real or sparse input.
        ValueError: a value or size that does not fit, or an envelope below 1e-11 where that was asked for (the same
            exception is also a RuntimeError, torch's own type).
    """
    options = (n_fft, hop_length, win_length, center, normalized, onesided, length, return_complex)
    extras = (torch_like, safety, kernel_dtype, kernel_layout, long_mode_strategy, allow_fused)
    key = _repeat.key_of("istft", input, window, *options, *extras)
    if key is not None and (recipe := _repeat.recipe_of(key)) is not None:
        out = recipe.run(input, window)
        if out is not None:
            return out
    flag("torch_like", torch_like)
    choice("safety", safety, _arguments.SAFETY)
    choice("kernel_dtype", kernel_dtype, _arguments.KERNEL_DTYPES)
    choice("kernel_layout", kernel_layout, _arguments.KERNEL_LAYOUTS)
    choice("long_mode_strategy", long_mode_strategy, _arguments.LONG_MODE_STRATEGIES)
    flag("allow_fused", allow_fused)
    call = istft_call(
        input, n_fft, hop_length, win_length, window, center, normalized, onesided, length, return_complex
    )
    if not torch.compiler.is_compiling() and call.length > call.available:
        warnings.warn(
            f"length={call.length} is longer than the {call.available} samples of the frames; the rest is zeros",
            stacklevel=2,
        )
    must_hold = safety == "always" or (torch_like and safety != "off")
    reason = tracing_reason()
    if call.window is not None and call.window.is_complex():
        reason = "complex window"
    out = _by_ops(call, must_hold) if reason is None else _by_torch(call, reason)
    plain = input.dim() <= 3 and not call.return_complex and kernel_dtype != "float16" and call.length <= call.available
    if key is not None and reason is None and plain:
        sizes = (call.n_fft, call.hop_length, call.offset, call.length, call.normalized)
        _repeat.learn_istft(key, input, _default_window(call), *sizes, is_default=window is None)
    if kernel_dtype == "float16":
        out = out.to(torch.complex32 if out.is_complex() else torch.float16)
    if input.dim() == 2:
        return out.squeeze(0)
    return out if input.dim() == 3 else out.unflatten(0, input.shape[:-2])


def _default_window(call: IstftCall) -> Tensor:
    if call.window is not None:
        return call.window
    return _windows.hann(call.win_length, call.spectrum.real.dtype, call.spectrum.device)


def _by_torch(call: IstftCall, reason: str) -> Tensor:
    if not torch.compiler.is_compiling():
        count_torch_route(reason)
    # the compiler knows torch's function by the name it has at the moment
    function = torch.istft if torch.compiler.is_compiling() else _torch_istft
    return function(
        call.spectrum,
        call.n_fft,
        call.hop_length,
        call.win_length,
        _default_window(call),
        call.center,
        call.normalized,
        call.onesided,
        call.length,
        call.return_complex,
    )


def _by_ops(call: IstftCall, must_hold: bool) -> Tensor:
    window, n_fft = _default_window(call), call.n_fft
    spectrum = call.spectrum
    if window.dtype == torch.float64:
        spectrum = spectrum.to(torch.complex128)
    span = (call.offset, call.offset + call.length)
    if must_hold and not nola_holds(window, n_fft, call.hop_length, spectrum.shape[-1], *span):
        raise ArgumentError(
            "window overlap add min is below 1e-11: no window reaches some of the samples asked for; choose another "
            "window, hop_length, center or length, or leave torch_like=False to get zeros there"
        )
    rest = (n_fft, call.hop_length, call.offset, call.length, call.normalized)
    if not call.return_complex:
        return inverse(spectrum[:, : n_fft // 2 + 1], window, *rest)
    # the one-sided spectra of the real and of the imaginary part of the signal
    positive = spectrum[:, : n_fft // 2 + 1]
    negative = torch.cat([spectrum[:, :1], spectrum[:, 1:].flip(1)], 1)[:, : n_fft // 2 + 1].conj()
    real = inverse((positive + negative) * 0.5, window, *rest)
    return torch.complex(real, inverse((positive - negative) * -0.5j, window, *rest))


def inverse(
    spectrum: Tensor, window: Tensor, n_fft: int, hop_length: int, offset: int, length: int, normalized: bool
) -> Tensor:
    """The inverse by our op: overlap-added frames over their envelope, 0 where that vanishes.

    Args:
        spectrum: (B, n_fft // 2 + 1, N) complex, any strides.
        window: (win_length,) real. The tensor the user holds: what is derived from it is kept by its identity.
        offset: samples to leave out before the first one returned.

    Returns:
        (B, length) real, contiguous.
    """
    # torch makes the gradient of a real view contiguous: in this layout the kernel has written it so
    pairs, window = torch.view_as_real(resolved(spectrum).transpose(1, 2)).transpose(1, 2), resolved(window)
    n_frames = spectrum.shape[-1]
    full = _windows.full_size(window, n_fft).to(pairs.dtype)
    differentiable = differentiates(window)
    env = None if differentiable else reciprocal_envelope(window, n_fft, hop_length, n_frames, pairs.dtype)
    scale = n_fft**-0.5 if normalized else 1.0 / n_fft
    signal = call_synthesis(pairs, full, env, n_fft, hop_length, offset, "constant", length, scale, True)
    if differentiable:
        total = envelope(window.to(pairs.dtype), n_fft, hop_length, n_frames)[offset : offset + length]
        total = torch.nn.functional.pad(total, (0, length - total.shape[0]))
        vanishes = total < LOWEST
        signal = (signal / total.masked_fill(vanishes, 1.0)).masked_fill(vanishes, 0.0)
    return signal
