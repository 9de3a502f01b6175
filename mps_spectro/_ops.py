"""torch.ops.mps_spectro: analysis, synthesis and correlate, known to the dispatcher, autograd, vmap and autocast.

All three are partial derivatives of one trilinear form in (x, window, spec),

    <analysis(x, window), spec> = <x, synthesis(spec, window)> = <window, correlate(x, spec)>,

so the gradient of each is another of them, and derivatives of any order stay inside these ops. Spectra are real-valued
(B, n_fft // 2 + 1, n_frames, 2); `env` is a constant gain on the padded signal in the layout of `_envelope`.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import _backend, _implementation, _reference
from ._diagnostics import count_torch_route

_LIBRARY = torch.library.Library("mps_spectro", "DEF")
_SHAPE = "SymInt n_fft, SymInt hop_length, SymInt offset, str pad_mode"
_SCHEMAS = {
    "analysis": f"Tensor x, Tensor window, Tensor? env, {_SHAPE}, SymInt n_frames, float scale, bool hermitian",
    "synthesis": f"Tensor spec, Tensor window, Tensor? env, {_SHAPE}, SymInt length, float scale, bool hermitian",
    "correlate": f"Tensor x, Tensor spec, Tensor? env, {_SHAPE}, float scale, bool hermitian",
}
for _name, _arguments in _SCHEMAS.items():
    _LIBRARY.define(f"{_name}({_arguments}) -> Tensor")
# a view made below autograd would forbid changing the result in place
_INPLACE_OR_VIEW = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
_analysis_op = torch.ops.mps_spectro.analysis.default
_synthesis_op = torch.ops.mps_spectro.synthesis.default
_correlate_op = torch.ops.mps_spectro.correlate.default


# --- shapes and strides without data ---------------------------------------------------------------------------------


def _fake_analysis(x: Tensor, window: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    n_fft, _, _, _, n_frames, _, _ = rest
    return x.new_empty((x.shape[0], n_frames, n_fft // 2 + 1, 2)).transpose(1, 2)


def _fake_synthesis(spec: Tensor, window: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    return spec.new_empty((spec.shape[0], rest[4]))


def _fake_correlate(x: Tensor, spec: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
    return x.new_empty((rest[0],))


# --- derivatives -----------------------------------------------------------------------------------------------------


class _TrilinearFunction(torch.autograd.Function):
    """Forward is the op below autograd; a factor is kept only if another one's gradient will need it."""

    @staticmethod
    def forward(ctx: Any, op: Any, keyset: Any, first: Tensor, second: Tensor, env: Any, *rest: Any) -> Tensor:
        # Function has switched grad mode off; for the transforms that are still inside (grad of grad) it must be on
        inside = torch.set_grad_enabled(torch._C._are_functorch_transforms_active())
        with inside, torch._C._AutoDispatchBelowAutograd(), torch._C._ExcludeDispatchKeyGuard(_INPLACE_OR_VIEW):
            out = op.redispatch(keyset & torch._C._after_autograd_keyset, first, second, env, *rest)
        _, _, needs_first, needs_second, *_ = ctx.needs_input_grad
        ctx.save_for_backward(first if needs_second else None, second if needs_first else None, env)
        ctx.first_shape = first.shape
        ctx.second_shape = second.shape
        ctx.rest = rest
        ctx.backend = _backend.requested()
        return out

    @classmethod
    def gradients(cls, ctx: Any, first: Any, second: Any) -> tuple[Any, ...]:
        """Evaluates the gradients that are asked for, as the tuple autograd expects."""
        _, _, needs_first, needs_second, *_ = ctx.needs_input_grad
        none = (None,) * (1 + len(ctx.rest))
        # the threads of autograd do not inherit the choice of the caller
        with _backend.use_backend(ctx.backend):
            return (None, None, first() if needs_first else None, second() if needs_second else None, *none)


class _Analysis(_TrilinearFunction):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, window, env = ctx.saved_tensors
        *shape, _, scale, hermitian = ctx.rest
        length = ctx.first_shape[1]
        return _Analysis.gradients(
            ctx,
            lambda: _synthesis_op(grad, window, env, *shape, length, scale, hermitian),
            lambda: _correlate_op(x, grad, env, *shape, scale, hermitian),
        )


class _Synthesis(_TrilinearFunction):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        spec, window, env = ctx.saved_tensors
        *shape, _, scale, hermitian = ctx.rest
        n_frames = ctx.first_shape[2]
        return _Synthesis.gradients(
            ctx,
            lambda: _analysis_op(grad, window, env, *shape, n_frames, scale, hermitian),
            lambda: _correlate_op(grad, spec, env, *shape, scale, hermitian),
        )


class _Correlate(_TrilinearFunction):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, spec, env = ctx.saved_tensors
        *shape, scale, hermitian = ctx.rest
        length, n_frames = ctx.first_shape[1], ctx.second_shape[2]
        return _Correlate.gradients(
            ctx,
            lambda: _synthesis_op(spec, grad, env, *shape, length, scale, hermitian),
            lambda: _analysis_op(x, grad, env, *shape, n_frames, scale, hermitian),
        )


def forward_mode_active() -> bool:
    """Whether forward-mode differentiation (dual tensors, torch.func.jvp, jacfwd, hessian) is going on."""
    if forward_ad._current_level >= 0:
        return True
    # a traced torch.func.jvp sets no Python state
    if not torch._C._are_functorch_transforms_active():
        return False
    return _functorch.peek_interpreter_stack().key() == _functorch.TransformType.Jvp


def _autograd_kernel(op: Any, function: Any, reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(keyset: Any, first: Tensor, second: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
        if forward_mode_active():
            # An autograd.Function below the dispatcher would drop tangents without a word. The torch ops of the
            # reference have formulas for both modes, and being called from here they are differentiated as if the
            # user had written them, whatever other transform (vmap, grad) is around.
            count_torch_route("forward-mode differentiation")
            return reference(first, second, env, *rest)
        if torch.is_grad_enabled() and (first.requires_grad or second.requires_grad):
            if torch._C._are_functorch_transforms_active():
                # Function.apply would start again at the outermost transform; here the dispatcher has already chosen
                # one (grad, vjp), and forward hands the rest to those inside it.
                with enable_single_level_autograd_function():
                    return super(torch.autograd.Function, function).apply(op, keyset, first, second, env, *rest)
            return function.apply(op, keyset, first, second, env, *rest)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, first, second, env, *rest)

    return kernel


# --- vmap and autocast -----------------------------------------------------------------------------------------------


def _vmap_rule(op: Any, folds: bool) -> Callable[..., tuple[Tensor, int]]:
    """Folds a mapped first factor into the batch where the op has one; otherwise calls the op once per entry."""

    def rule(info: Any, in_dims: Any, first: Tensor, second: Tensor, env: Tensor | None, *rest: Any) -> Any:
        dims = in_dims[:3]
        if folds and dims[1] is None and dims[2] is None:
            first = first.movedim(dims[0], 0)
            out = op(first.flatten(0, 1), second, env, *rest)
            return out.unflatten(0, first.shape[:2]), 0
        columns = [
            [tensor] * info.batch_size if tensor is None or dim is None else tensor.unbind(dim)
            for tensor, dim in zip((first, second, env), dims)
        ]
        return torch.stack([op(*tensors, *rest) for tensors in zip(*columns)]), 0

    return rule


def _autocast_kernel(op: Any, key: str) -> Callable[..., Tensor]:
    """Half and bfloat16 inputs are computed in float32: spectra span more than half can hold."""
    excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(first: Tensor, second: Tensor, env: Tensor | None, *rest: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return op(_widened(first), _widened(second), None if env is None else _widened(env), *rest)

    return kernel


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _register(op: Any, kernel: Any, reference: Callable[..., Tensor], fake: Any, function: Any, folds: bool) -> None:
    name = op._opname
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, _autograd_kernel(op, function, reference), "Autograd", with_keyset=True)
    for key in ("AutocastCPU", "AutocastCUDA", "AutocastMPS"):
        _LIBRARY.impl(name, _autocast_kernel(op, key), key)
    torch.library.register_fake(f"mps_spectro::{name}", fake, lib=_LIBRARY)
    torch.library.register_vmap(f"mps_spectro::{name}", _vmap_rule(op, folds), lib=_LIBRARY)


_register(_analysis_op, _implementation.analysis, _reference.analysis, _fake_analysis, _Analysis, folds=True)
_register(_synthesis_op, _implementation.synthesis, _reference.synthesis, _fake_synthesis, _Synthesis, folds=True)
_register(_correlate_op, _implementation.correlate, _reference.correlate, _fake_correlate, _Correlate, folds=False)


# --- what stft and istft call ----------------------------------------------------------------------------------------


def _below_autograd(first: Tensor, second: Tensor) -> bool:
    """Whether nothing around this call differentiates or transforms it, so that the autograd kernels can be skipped."""
    return not (
        torch.compiler.is_compiling()
        or (torch.is_grad_enabled() and (first.requires_grad or second.requires_grad))
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
    )


def call_analysis(
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
    """torch.ops.mps_spectro.analysis with little overhead where nothing requires grad.

    Args:
        x: (B, T) floating point, any strides.
        window: (n_fft,), dtype and device of x.
        env: gain on the padded signal from `_envelope`, or None.
        offset: samples of padding before the signal; after it, as many as the frames need.
        pad_mode: "constant", "reflect", "replicate" or "circular".
        hermitian: doubles the bins between DC and Nyquist.

    Returns:
        (B, n_fft // 2 + 1, n_frames, 2), in memory (B, n_frames, n_fft // 2 + 1, 2).
    """
    if _below_autograd(x, window):
        with torch._C._AutoDispatchBelowAutograd():
            return _analysis_op(x, window, env, n_fft, hop_length, offset, pad_mode, n_frames, scale, hermitian)
    return _analysis_op(x, window, env, n_fft, hop_length, offset, pad_mode, n_frames, scale, hermitian)


def call_synthesis(
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
    """torch.ops.mps_spectro.synthesis with little overhead where nothing requires grad.

    Args:
        spec: (B, n_fft // 2 + 1, n_frames, 2) floating point, any strides;
            imaginary parts at DC and Nyquist do not count.
        window, env, offset, pad_mode, hermitian: as for `call_analysis`; padding is folded back on the signal.

    Returns:
        (B, length), contiguous; zeros beyond the last frame.
    """
    if _below_autograd(spec, window):
        with torch._C._AutoDispatchBelowAutograd():
            return _synthesis_op(spec, window, env, n_fft, hop_length, offset, pad_mode, length, scale, hermitian)
    return _synthesis_op(spec, window, env, n_fft, hop_length, offset, pad_mode, length, scale, hermitian)
