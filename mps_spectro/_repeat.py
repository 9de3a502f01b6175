"""The short way for calls that repeat: same arguments and shapes as a call that a kernel has answered.

Eager inference calls stft thousands of times with one configuration. After the first such call its launch is kept,
bound to everything but the tensors, and later ones skip validation, planning and the dispatcher. Wherever somebody
could be watching the dispatcher (autograd, transforms, tracers, modes) there is no short way.
"""

from __future__ import annotations

import weakref
from typing import Any, Hashable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _backend, _kernels, _route
from ._cache import BoundedCache
from ._diagnostics import count_kernel
from ._envelope import reciprocal_envelope

_recipes: BoundedCache[StftRecipe | IstftRecipe] = BoundedCache("repeated calls", 256)

_modes = torch._C._len_torch_dispatch_stack
_functions = torch._C._len_torch_function_stack
_transforms = torch._C._are_functorch_transforms_active
_tracer = torch._C._get_tracing_state
_settings = _backend.settings


def key_of(tag: str, input: Tensor, window: Tensor | None, *options: Any) -> Hashable | None:
    """What makes two calls the same but for their data; None where there is no short way.

    The options' types are in it, because 16 == 16.0 and True == 1.
    """
    if torch.compiler.is_compiling() or type(input) is not Tensor:
        return None
    if (
        _modes()
        or _functions()
        or _transforms()
        or forward_ad._current_level >= 0
        or _tracer() is not None
        or (input.requires_grad and torch.is_grad_enabled())
        or input.layout is not torch.strided
        or input.is_nested
        or input.is_neg()
        or input.is_conj()
    ):
        return None
    of_window: Any = None
    if window is not None:
        if (
            type(window) is not Tensor
            or window.layout is not torch.strided
            or window.is_nested
            or window.is_neg()
            or window.is_conj()
            or (window.requires_grad and torch.is_grad_enabled())
        ):
            return None
        of_window = (window.shape, window.stride(), window.dtype, window.device, window.data_ptr() & 7)
    return (
        tag,
        _settings(),
        input.shape,
        input.stride(),
        input.dtype,
        input.device,
        input.data_ptr() & 7,
        of_window,
        options,
        tuple(map(type, options)),
    )


def recipe_of(key: Hashable) -> Any:
    """The recipe that was kept for this key, or None."""
    try:
        return _recipes.find(key)
    except TypeError:  # an option that cannot be hashed, which the long way refuses
        return None


def _backend_for(tensor: Tensor, n_fft: int, hop_length: int) -> str | None:
    """The kernel backend that has been answering such calls, or None."""
    backend = _backend.select(tensor.device.type)
    if backend == "torch" or backend in _route._broken or tensor.is_meta:
        return None
    return backend if _kernels.refusal(torch.float32, n_fft, hop_length) is None else None


def _plain_window(window: Tensor, n_fft: int) -> bool:
    return (
        window.shape == (n_fft,)
        and window.dtype == torch.float32
        and window.is_contiguous()
        and not window.is_inference()
    )


class StftRecipe:
    """A call of stft that gives a one-sided complex spectrum, by its launch."""

    def __init__(self, backend: str, launch: _kernels.Launch, shape: tuple[int, ...], default: Tensor | None) -> None:
        self._backend = backend
        self._run = launch.run
        self._table = launch.table
        self._default = default
        *_, bins, frames = shape
        self._shape = shape
        self._strides = (*(bins * frames,) * (len(shape) - 2), 1, bins)

    def run(self, input: Tensor, window: Tensor | None) -> Tensor:
        out = torch.empty_strided(self._shape, self._strides, dtype=torch.complex64, device=input.device)
        if window is None:
            window = self._default
        self._run(input, window, window, self._table, out)
        count_kernel("analysis", self._backend)
        return out


def learn_stft(
    key: Hashable | None,
    input: Tensor,
    window: Tensor,
    n_fft: int,
    hop_length: int,
    offset: int,
    pad_mode: str,
    n_frames: int,
    normalized: bool,
    is_default: bool,
) -> None:
    """Keeps the launch of a call that went well: real float32 input (T,) or (B, T), window as the kernel reads it."""
    if key is None or input.dtype != torch.float32 or not _plain_window(window, n_fft) or n_frames < 1:
        return
    backend = _backend_for(input, n_fft, hop_length)
    if backend is None or input.numel() == 0:
        return
    batch = 1 if input.dim() == 1 else input.shape[0]
    strides = (0, input.stride(0)) if input.dim() == 1 else (input.stride(0), input.stride(1))
    scale = n_fft**-0.5 if normalized else 1.0
    launch = _kernels.bind_analysis(
        backend,
        input.device,
        (batch, input.shape[-1]),
        strides,
        _kernels.aligned(input, window),
        None,
        n_fft,
        hop_length,
        offset,
        pad_mode,
        n_frames,
        scale,
        False,
    )
    shape = (*input.shape[:-1], n_fft // 2 + 1, n_frames)
    _recipes.put(key, StftRecipe(backend, launch, shape, window if is_default else None))


class IstftRecipe:
    """A call of istft by its launch, for the window whose envelope is known."""

    def __init__(
        self,
        backend: str,
        launch: _kernels.Launch,
        shape: tuple[int, ...],
        window: Tensor,
        env: Tensor,
        is_default: bool,
    ) -> None:
        self._backend = backend
        self._run = launch.run
        self._table = launch.table
        self._shape = shape
        self._env = env
        self._window = weakref.ref(window)
        self._version = window._version
        self._address = window.data_ptr()
        self._default = window if is_default else None
        self._stream = _stream(window)

    def run(self, input: Tensor, window: Tensor | None) -> Tensor | None:
        """The signal, or None when this is another window than the one whose envelope is kept."""
        if window is None:
            window = self._default
        elif self._window() is not window or self._version != window._version or self._address != window.data_ptr():
            return None
        if self._stream != _stream(input):
            return None
        out = torch.empty(self._shape, dtype=torch.float32, device=input.device)
        self._run(input, window, self._env, self._table, out)
        count_kernel("synthesis", self._backend)
        return out


def _stream(tensor: Tensor) -> int:
    """The stream that tables were made on: on another one they might not be ready."""
    return torch._C._cuda_getCurrentRawStream(tensor.get_device()) if tensor.is_cuda else 0


def learn_istft(
    key: Hashable | None,
    input: Tensor,
    window: Tensor,
    n_fft: int,
    hop_length: int,
    offset: int,
    length: int,
    normalized: bool,
    is_default: bool,
) -> None:
    """Keeps the launch of a call that went well: complex64 input (F, N) or (B, F, N), one-sided."""
    if key is None or input.dtype != torch.complex64 or not _plain_window(window, n_fft):
        return
    if input.shape[-2] != n_fft // 2 + 1 or input.numel() == 0 or length < 1:
        return
    backend = _backend_for(input, n_fft, hop_length)
    if backend is None:
        return
    n_frames = input.shape[-1]
    env = reciprocal_envelope(window, n_fft, hop_length, n_frames, torch.float32)
    strides = (0, *input.stride()) if input.dim() == 2 else input.stride()
    launch = _kernels.bind_synthesis(
        backend,
        input.device,
        (1 if input.dim() == 2 else input.shape[0], n_frames),
        strides,
        _kernels.aligned(window),
        env.shape[0],
        n_fft,
        hop_length,
        offset,
        "constant",
        length,
        n_fft**-0.5 if normalized else 1.0 / n_fft,
        True,
    )
    _recipes.put(key, IstftRecipe(backend, launch, (*input.shape[:-2], length), window, env, is_default))
