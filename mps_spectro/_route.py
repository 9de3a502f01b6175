"""Whether a kernel or plain torch answers an op, and what happens when the kernels do not work on this machine."""

from __future__ import annotations

import threading
import warnings
from typing import Any, Callable

import torch
from torch import Tensor

from . import _backend, _band_kernels, _kernels, _reference
from ._diagnostics import count_kernel, count_torch_route
from ._runtime import RuntimeUnavailable, ShaderCompileError

# backends this process has given up on in automatic mode, with the reason
_broken: dict[str, str] = {}
_self_tested: set[str] = set()
_lock = threading.RLock()
_KERNELS: dict[str, Callable[..., Any]] = {
    "analysis": _kernels.analysis,
    "synthesis": _kernels.synthesis,
    "bands": _band_kernels.bands,
    "gains": _band_kernels.gains,
}


def choose(tensor: Tensor, n_fft: int, hop_length: int, left: int, right: int, pad_mode: str) -> str | None:
    """The backend whose kernel takes this call, or None (counted with its reason) when plain torch does."""
    device_type = tensor.device.type
    backend = _backend.select(device_type)
    if backend == "torch":
        reason = "backend torch" if _backend.requested() == "torch" else f"{device_type} tensor"
    elif (refused := _kernels.refusal(tensor.dtype, n_fft, hop_length)) is not None:
        reason = refused
    elif pad_mode != "constant" and right > left:
        reason = "more padding after the signal than before it"
    elif backend == "metal" and backend not in _self_tested and not _passes_self_test(backend, tensor.device):
        reason = f"{backend} failed its self-test"
    elif backend in _broken and not _backend.explicit():
        reason = f"{backend} unavailable"
    else:
        return backend
    count_torch_route(reason)
    return None


def run_kernel(
    op: str, backend: str, first: Tensor, window: Tensor, env: Tensor | None, rest: tuple[Any, ...]
) -> Tensor | None:
    """The op's result from its kernel, or None when the backend turns out not to work here."""

    def launch() -> Tensor | None:
        # kernels read the strides of their first argument alone
        contiguous = None if env is None else env.contiguous()
        return _KERNELS[op](backend, first, window.contiguous(), contiguous, *rest)

    return attempt(op, backend, launch)


def attempt(op: str, backend: str, launch: Callable[[], Tensor | None]) -> Tensor | None:
    """What `launch` returns, counted as the kernel of `op`, or None when the backend turns out not to work here.

    Raises:
        RuntimeUnavailable, ShaderCompileError: as the runtime says, when the backend was asked for by name.
    """
    try:
        out = launch()
    except (RuntimeUnavailable, ShaderCompileError) as error:
        if _backend.explicit():
            raise
        _give_up(backend, str(error))
        count_torch_route(f"{backend} unavailable")
        return None
    if out is not None:
        count_kernel(op, backend)
    return out


def _give_up(backend: str, why: str) -> None:
    with _lock:
        if backend in _broken:
            return
        _broken[backend] = why
    warnings.warn(
        f"mps_spectro: the {backend} kernels do not work here, plain torch answers instead: {why}",
        RuntimeWarning,
        stacklevel=2,
    )


def _passes_self_test(backend: str, device: torch.device) -> bool:
    """Runs both kernels once on a small case, so that a device that miscomputes gives slow numbers, not wrong ones."""
    with _lock:
        if backend in _self_tested:
            return True
        if backend in _broken and not _backend.explicit():
            return False
        try:
            why = _disagreement(backend, device)
        except (RuntimeUnavailable, ShaderCompileError) as error:
            if _backend.explicit():
                raise
            why = str(error)
        if why is not None:
            if _backend.explicit():
                raise RuntimeError(f"the {backend} kernels disagree with plain torch on this machine: {why}")
            _give_up(backend, why)
            return False
        _self_tested.add(backend)
        return True


def _disagreement(backend: str, device: torch.device) -> str | None:
    n_fft, hop, offset, n_frames = 16, 4, 8, 9
    with torch.inference_mode(False), torch.no_grad():
        x = torch.linspace(-1.0, 1.0, 64).mul(37.0).sin().reshape(2, 32)
        window = torch.hann_window(n_fft)
        shape = (None, n_fft, hop, offset, "reflect")
        spec = _reference.analysis(x, window, *shape, n_frames, 1.0, False)
        back = _reference.synthesis(spec, window, *shape, 32, 1.0, False)
        got_spec = _KERNELS["analysis"](backend, x.to(device), window.to(device), *shape, n_frames, 1.0, False)
        got_back = _KERNELS["synthesis"](backend, spec.to(device), window.to(device), *shape, 32, 1.0, False)
        for op, got, expected in (("analysis", got_spec, spec), ("synthesis", got_back, back)):
            error = (got.cpu() - expected).abs().max() / expected.abs().max()
            if not error <= 1e-5:
                return f"{op} is off by {error.item():.1e} of the largest value"
    return None
