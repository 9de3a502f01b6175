"""Whether a call goes to our ops or to torch's own function, and why."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from . import _backend
from ._backend import _DEVICE_OF


def _is_exporting() -> bool:
    # compilers before torch 2.13 take torch.compiler.is_exporting() for True whenever they trace
    return getattr(torch.compiler, "_is_exporting_flag", False)


def traced() -> bool:
    """True while tensors are symbols or wrapped by a transform: their values may not decide anything nor be kept."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def tracing_reason() -> str | None:
    """The tracer at work whose graph must hold torch's own function, or None."""
    if _is_exporting():
        return "torch.export"
    if not torch.compiler.is_compiling() and torch.jit.is_tracing():
        return "torch.jit.trace"
    return None


def torch_reason(device_type: str) -> str | None:
    """Why the patched functions leave tensors of this device to torch's own, or None where our ops answer.

    A compiled graph holds our ops whatever the device: they choose their backend each time they run.
    """
    reason = tracing_reason()
    if reason is not None or torch.compiler.is_compiling():
        return reason
    if _backend.disabled():
        return "MPS_SPECTRO_DISABLE"
    name = _backend.requested()
    if name == "torch":
        return "backend torch"
    if name == "auto":
        return None if device_type in ("mps", "cuda") else f"{device_type} tensor"
    if device_type != _DEVICE_OF[name]:  # asked for by name for another device: a patched program goes on
        return f"backend {name} does not take {device_type} tensors"
    return None


def differentiates(tensor: torch.Tensor) -> bool:
    """Whether a derivative with respect to this tensor may be asked for, in any mode."""
    return (
        (tensor.requires_grad and torch.is_grad_enabled())
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
    )


def resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its memory as it reads: kernels do not see the conjugate and negative bits of views."""
    if torch.compiler.is_compiling():
        return tensor.resolve_conj().resolve_neg()
    if tensor.is_conj():
        tensor = tensor.resolve_conj()
    return tensor.resolve_neg() if tensor.is_neg() else tensor
