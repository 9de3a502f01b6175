"""torch.ops.mps_spectro.bands: a signal to the bands of its power spectrum, without the spectrum in between.

    S[k] = (|scale X[k]|^2 + eps)^(power/2)  or, with eps outside,  |scale X[k]|^power + eps
    M[m] = sum_k basis[m, k] S[k]            (without a basis the bins are the bands)
    out  = M, factor * ln(max(M, floor)), factor * ln(M + floor) or factor * ln(1 + floor * M)

`bands_backward` is its gradient with respect to the signal, the window or the basis. It transforms the signal again
instead of keeping the spectrum, and is itself made of differentiable ops, so derivatives exist to any order.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function

from . import _backend, _implementation, _kernels, _ops, _route
from ._bands_reference import MODES, BandsArguments, project, reference, safe_power, scaled, squares
from ._diagnostics import count_torch_route

# bins of a spectrum that the backward pass holds at a time: as plain torch does it, and between two kernels
_CHUNK = 1 << 26
_FUSED_CHUNK = 1 << 23

_SHAPE = (
    "Tensor x, Tensor window, Tensor? basis, SymInt n_fft, SymInt hop_length, SymInt offset, str pad_mode, "
    "SymInt n_frames, float scale, float power, float eps, bool eps_inside, str mode, float factor, float floor"
)
_ops._LIBRARY.define(f"bands({_SHAPE}) -> Tensor")
_ops._LIBRARY.define(f"bands_backward(Tensor grad, {_SHAPE}, str wrt) -> Tensor")
_bands_op = torch.ops.mps_spectro.bands.default
_backward_op = torch.ops.mps_spectro.bands_backward.default


def _gradient(grad: Tensor, x: Tensor, window: Tensor, basis: Tensor | None, rest: BandsArguments, wrt: str) -> Tensor:
    """The gradient as differentiable ops say it."""
    if rest.mode != "linear":
        m = _bands_op(x, window, basis, *rest.linear)
        if rest.mode == "clamp":
            slope = (rest.factor / m.clamp(min=rest.floor)).masked_fill(m < rest.floor, 0.0)
        elif rest.mode == "add":
            slope = rest.factor / (m + rest.floor)
        else:
            slope = rest.factor * rest.floor / (1.0 + rest.floor * m)
        grad = grad * slope
    if wrt == "basis":
        s = _bands_op(x, window, None, *rest.linear)
        return torch.matmul(grad.transpose(1, 2).flatten(0, 1).t(), s.transpose(1, 2).flatten(0, 1))
    if basis is not None:
        grad = torch.matmul(grad.transpose(1, 2), basis).transpose(1, 2)
    spec = _ops._analysis_op(x, window, None, *rest.shape, rest.n_frames, rest.scale, False)
    gain = rest.power * grad
    if rest.power != 2:
        gain = gain * safe_power(squares(spec, rest), 0.5 * rest.power - 1.0)
    spec = spec * gain.unsqueeze(-1)
    if wrt == "x":
        return _ops._synthesis_op(spec, window, None, *rest.shape, x.shape[1], rest.scale, False)
    return _ops._correlate_op(x, spec, None, *rest.shape, rest.scale, False)


# --- below autograd --------------------------------------------------------------------------------------------------


def _check(x: Tensor, window: Tensor, basis: Tensor | None, rest: BandsArguments) -> None:
    _implementation._check("bands", x, window, None, rest.n_fft, rest.hop_length)
    _implementation._check_window("bands", window, rest.n_fft)
    if x.dim() != 2:
        raise ValueError(f"bands: x must be (B, T), got shape {tuple(x.shape)}")
    if basis is not None:
        if basis.dtype != x.dtype or basis.device != x.device:
            kinds = f"{_implementation._kind(x)}, got {_implementation._kind(basis)}"
            raise TypeError(f"bands: basis must be like the signal, {kinds}")
        if basis.dim() != 2 or basis.shape[1] != rest.n_fft // 2 + 1:
            raise ValueError(f"bands: basis must be (n_bands, {rest.n_fft // 2 + 1}), got shape {tuple(basis.shape)}")
    if rest.mode not in MODES:
        raise ValueError(f"bands: mode must be one of {', '.join(MODES)}, got {rest.mode!r}")
    if not rest.power > 0:
        raise ValueError(f"bands: power must be positive, got {rest.power}")


def _forward(x: Tensor, window: Tensor, basis: Tensor | None, *arguments: Any) -> Tensor:
    rest = BandsArguments(*arguments)
    _check(x, window, basis, rest)
    backend = _implementation._backend("bands", x, None, *rest.shape, rest.n_frames, x.shape[1])
    if backend is None:
        return reference(x, window, basis, *rest)
    out = _route.run_kernel("bands", backend, x, window, basis, rest)
    if out is None and basis is not None:  # more weights than the kernel sums
        power = _route.run_kernel("bands", backend, x, window, None, rest.linear)
        out = None if power is None else scaled(project(power, basis), rest)
    return reference(x, window, basis, *rest) if out is None else out


def _rows(bins: int, rest: BandsArguments) -> int:
    return max(1, bins // max(1, rest.n_frames * (rest.n_fft // 2 + 1)))


def _fused_gradient(
    grad: Tensor, x: Tensor, window: Tensor, basis: Tensor | None, rest: BandsArguments
) -> Tensor | None:
    """The gradient of the signal by two kernels for a few rows at a time, so that little memory lies between them."""
    length = x.shape[1]
    backend = _implementation._backend("bands", x, None, *rest.shape, rest.n_frames, length)
    if backend is None:
        return None
    out = x.new_empty(x.shape)
    rows = _rows(_FUSED_CHUNK, rest)
    for place, part, g in zip(out.split(rows), x.split(rows), grad.split(rows)):
        spec = _route.run_kernel("gains", backend, part, window, basis, (g, *rest))
        if spec is None:
            return None
        inverse = (*rest.shape, length, rest.scale, False, place)
        if _route.run_kernel("synthesis", backend, spec, window, None, inverse) is None:
            return None
    return out


def _backward(grad: Tensor, x: Tensor, window: Tensor, basis: Tensor | None, *arguments: Any) -> Tensor:
    *numbers, wrt = arguments
    rest = BandsArguments(*numbers)
    if x.dtype in (torch.float16, torch.bfloat16):
        wide = [None if tensor is None else tensor.float() for tensor in (grad, x, window, basis)]
        return _backward_op(*wide, *rest, wrt).to(x.dtype)
    if wrt == "x":
        out = _fused_gradient(grad, x, window, basis, rest)
        if out is not None:
            return out
    rows = _rows(_CHUNK, rest)
    if x.shape[0] <= rows:
        return _gradient(grad, x, window, basis, rest, wrt)
    parts = (_gradient(g, part, window, basis, rest, wrt) for g, part in zip(grad.split(rows), x.split(rows)))
    if wrt != "x":
        return sum(parts, torch.zeros((), dtype=x.dtype, device=x.device))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for place, part in zip(out.split(rows), parts):
        place.copy_(part)
    return out


# --- what the dispatcher knows about them ----------------------------------------------------------------------------


def _fake_forward(x: Tensor, window: Tensor, basis: Tensor | None, *arguments: Any) -> Tensor:
    rest = BandsArguments(*arguments)
    n_bands = rest.n_fft // 2 + 1 if basis is None else basis.shape[0]
    return x.new_empty((x.shape[0], rest.n_frames, n_bands)).transpose(1, 2)


def _fake_backward(grad: Tensor, x: Tensor, window: Tensor, basis: Any, *arguments: Any) -> Tensor:
    return x.new_empty({"x": x, "window": window, "basis": basis}[arguments[-1]].shape)


class _Bands(torch.autograd.Function):
    """Forward is the op below autograd; nothing but its arguments is kept."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, x: Tensor, window: Tensor, basis: Tensor | None, *rest: Any) -> Tensor:
        # as for the other ops: on for the transforms that are still inside (grad of grad)
        inside = torch.set_grad_enabled(torch._C._are_functorch_transforms_active())
        with inside, torch._C._AutoDispatchBelowAutograd(), torch._C._ExcludeDispatchKeyGuard(_ops._INPLACE_OR_VIEW):
            out = _bands_op.redispatch(keyset & torch._C._after_autograd_keyset, x, window, basis, *rest)
        ctx.save_for_backward(x, window, basis)
        ctx.rest = rest
        ctx.backend = _backend.requested()
        ctx.swept = _kernels._run_time_sizes.get()
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, window, basis = ctx.saved_tensors
        # the threads of autograd do not inherit the choices of the caller
        swept = _kernels.run_time_sizes() if ctx.swept else contextlib.nullcontext()
        with _backend.use_backend(ctx.backend), swept:
            gradients = [
                _backward_op(grad, x, window, basis, *ctx.rest, wrt) if needed else None
                for wrt, needed in zip(("x", "window", "basis"), ctx.needs_input_grad[1:4])
            ]
        return (None, *gradients, *(None,) * len(ctx.rest))


def _any_requires_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _autograd_forward(keyset: Any, x: Tensor, window: Tensor, basis: Tensor | None, *rest: Any) -> Tensor:
    if _ops.forward_mode_active():
        # an autograd.Function below the dispatcher would drop tangents without a word
        count_torch_route("forward-mode differentiation")
        return reference(x, window, basis, *rest)
    if _any_requires_grad(x, window, basis):
        if torch._C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return super(torch.autograd.Function, _Bands).apply(keyset, x, window, basis, *rest)
        return _Bands.apply(keyset, x, window, basis, *rest)
    with torch._C._AutoDispatchBelowAutograd():
        return _bands_op.redispatch(keyset & torch._C._after_autograd_keyset, x, window, basis, *rest)


def _autograd_backward(keyset: Any, grad: Tensor, x: Tensor, window: Tensor, basis: Any, *arguments: Any) -> Tensor:
    if _ops.forward_mode_active() or _any_requires_grad(grad, x, window, basis):
        *rest, wrt = arguments
        return _gradient(grad, x, window, basis, BandsArguments(*rest), wrt)
    with torch._C._AutoDispatchBelowAutograd():
        return _backward_op.redispatch(keyset & torch._C._after_autograd_keyset, grad, x, window, basis, *arguments)


def _backward_vmap_rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
    """Folds mapped signals and gradients into the batch; otherwise calls the op once per entry."""
    tensors, rest = arguments[:4], arguments[4:]
    if rest[-1] == "x" and in_dims[2] is None and in_dims[3] is None:
        folded = [
            (tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
            for tensor, dim in zip(tensors[:2], in_dims)
        ]
        return _backward_op(*folded, *tensors[2:], *rest).unflatten(0, (info.batch_size, -1)), 0
    columns = [
        [tensor] * info.batch_size if dim is None else tensor.unbind(dim) for tensor, dim in zip(tensors, in_dims)
    ]
    return torch.stack([_backward_op(*entry, *rest) for entry in zip(*columns)]), 0


def _autocast_backward(key: str) -> Any:
    excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*arguments: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return _backward_op(*arguments)

    return kernel


_library = _ops._LIBRARY
_library.impl("bands", _forward, "CompositeExplicitAutograd")
_library.impl("bands_backward", _backward, "CompositeExplicitAutograd")
_library.impl("bands", _autograd_forward, "Autograd", with_keyset=True)
_library.impl("bands_backward", _autograd_backward, "Autograd", with_keyset=True)
for _key in ("AutocastCPU", "AutocastCUDA", "AutocastMPS"):
    _library.impl("bands", _ops._autocast_kernel(_bands_op, _key), _key)
    _library.impl("bands_backward", _autocast_backward(_key), _key)
torch.library.register_fake("mps_spectro::bands", _fake_forward, lib=_library)
torch.library.register_fake("mps_spectro::bands_backward", _fake_backward, lib=_library)
torch.library.register_vmap("mps_spectro::bands", _ops._vmap_rule(_bands_op, folds=True), lib=_library)
torch.library.register_vmap("mps_spectro::bands_backward", _backward_vmap_rule, lib=_library)


def call_bands(x: Tensor, window: Tensor, basis: Tensor | None, *rest: Any) -> Tensor:
    """torch.ops.mps_spectro.bands with little overhead where nothing requires grad.

    Args:
        x: (B, T) floating point, any strides.
        window: (n_fft,), dtype and device of x.
        basis: (n_bands, n_fft // 2 + 1) like x, or None for the bins themselves.
        rest: n_fft, hop_length, offset, pad_mode, n_frames, scale, power, eps, eps_inside, mode, factor, floor.

    Returns:
        (B, n_bands, n_frames), in memory (B, n_frames, n_bands).
    """
    below = _ops._below_autograd(x, window) and not (basis is not None and _any_requires_grad(basis))
    with torch._C._AutoDispatchBelowAutograd() if below else contextlib.nullcontext():
        return _bands_op(x, window, basis, *rest)
