"""What runs when one of the three ops is called: checks, then the kernel of a backend or plain torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import _reference, _route


def _check(op: str, first: Tensor, second: Tensor, env: Tensor | None, n_fft: int, hop_length: int) -> None:
    if second.dtype != first.dtype or second.device != first.device:
        raise TypeError(f"{op}: inputs must be of one dtype and device, got {_kind(first)} and {_kind(second)}")
    if env is not None and (env.dtype != first.dtype or env.device != first.device):
        raise TypeError(f"{op}: env must be like the input, {_kind(first)}, got {_kind(env)}")
    if n_fft < 1 or hop_length < 1:
        raise ValueError(f"{op}: n_fft and hop_length must be positive, got {n_fft} and {hop_length}")


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} on {tensor.device}"


def _check_window(op: str, window: Tensor, n_fft: int) -> None:
    if window.shape != (n_fft,):
        raise ValueError(f"{op}: window must have n_fft = {n_fft} entries, got shape {tuple(window.shape)}")


def _check_spec(op: str, spec: Tensor, n_fft: int) -> None:
    if spec.dim() != 4 or spec.shape[1] != n_fft // 2 + 1 or spec.shape[3] != 2:
        raise ValueError(f"{op}: spec must be (B, {n_fft // 2 + 1}, n_frames, 2), got shape {tuple(spec.shape)}")


def _backend(
    op: str,
    first: Tensor,
    env: Tensor | None,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    length: int,
) -> str | None:
    """The backend for this call, once the padding is defined and the table is long enough."""
    if offset < 0 or length < 0 or n_frames < 0:
        raise ValueError(f"{op}: offset, length and n_frames must not be negative, got {offset, length, n_frames}")
    full_length = _reference.full_length(n_fft, hop_length, n_frames)
    if env is not None and env.shape != (min(full_length, 2 * n_fft + hop_length),):
        entries = min(full_length, 2 * n_fft + hop_length)
        raise ValueError(f"{op}: env must have {entries} entries, got shape {tuple(env.shape)}")
    after = max(0, full_length - offset - length)
    _reference.check_padding(length, offset, after, pad_mode)
    return _route.choose(first, n_fft, hop_length, offset, after, pad_mode)


def analysis(x: Tensor, window: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    n_fft, hop_length, offset, pad_mode, n_frames, _, _ = rest
    _check("analysis", x, window, env, n_fft, hop_length)
    _check_window("analysis", window, n_fft)
    if x.dim() != 2:
        raise ValueError(f"analysis: x must be (B, T), got shape {tuple(x.shape)}")
    backend = _backend("analysis", x, env, n_fft, hop_length, offset, pad_mode, n_frames, x.shape[1])
    out = _route.run_kernel("analysis", backend, x, window, env, rest) if backend is not None else None
    return _reference.analysis(x, window, env, *rest) if out is None else out


def synthesis(spec: Tensor, window: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    n_fft, hop_length, offset, pad_mode, length, _, _ = rest
    _check("synthesis", spec, window, env, n_fft, hop_length)
    _check_window("synthesis", window, n_fft)
    _check_spec("synthesis", spec, n_fft)
    backend = _backend("synthesis", spec, env, n_fft, hop_length, offset, pad_mode, spec.shape[2], length)
    out = _route.run_kernel("synthesis", backend, spec, window, env, rest) if backend is not None else None
    return _reference.synthesis(spec, window, env, *rest) if out is None else out


def correlate(x: Tensor, spec: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    n_fft, hop_length, offset, pad_mode, scale, hermitian = rest
    _check("correlate", x, spec, env, n_fft, hop_length)
    _check_spec("correlate", spec, n_fft)
    if x.dim() != 2 or x.shape[0] != spec.shape[0]:
        raise ValueError(f"correlate: x must be ({spec.shape[0]}, T), got shape {tuple(x.shape)}")
    backend = _backend("correlate", x, env, n_fft, hop_length, offset, pad_mode, spec.shape[2], x.shape[1])
    if backend is None:
        return _reference.correlate(x, spec, env, *rest)

    def inverse(part: Tensor, n_fft: int, scale: float, hermitian: bool) -> Tensor:
        # frames side by side: without overlap the synthesis kernel is the inverse transform
        batch, _, n_frames, _ = part.shape
        apart = (n_fft, n_fft, 0, "constant", n_frames * n_fft, scale, hermitian)
        rows = _route.run_kernel("synthesis", backend, part, part.new_ones(n_fft), None, apart)
        if rows is None:
            return _reference.inverse_frames(part, n_fft, scale, hermitian)
        return rows.view(batch, n_frames, n_fft)

    return _reference.correlate(x, spec, env, n_fft, hop_length, offset, pad_mode, scale, hermitian, inverse)
