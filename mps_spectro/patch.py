"""Puts our transforms in the place of torch.stft and torch.istft, to the letter, and takes them out again.

Calls that the kernels cover (real float32 signals, complex64 spectra, valid arguments) go to our ops; every other one,
each invalid one included, goes to the function that was there before, with the arguments as they came.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any, Callable

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._device import DeviceContext

from . import _backend, _repeat
from ._coverage import traced
from ._diagnostics import count_torch_route
from ._eligible import plan_istft, plan_stft

# what TorchScript compiles in the place of our functions
_torch_stft = torch.functional.stft
_torch_istft = torch.functional.istft

_UNDONE = "patch undone"
_lock = threading.RLock()
_active = False  # whether any patch is in force; ours pass through where they outlive theirs
_handles: set[Patch] = set()
_saved: dict[tuple[str, str], Callable[..., Tensor]] = {}  # what stood in each place before ours
_warned: set[str] = set()


# --- the functions that stand in torch's place ------------------------------------------------------------------------


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
    if torch.jit.is_scripting():
        return _torch_stft(
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
    return _stft(
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


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    if torch.jit.is_scripting():
        return _torch_istft(
            input,
            n_fft,
            hop_length,
            win_length,
            window,
            center,
            normalized,
            onesided,
            length,
            return_complex,
        )
    return _istft(input, n_fft, hop_length, win_length, window, center, normalized, onesided, length, return_complex)


# TorchScript reads the functions above to their last line, so what it could not parse stands apart.


def _stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    pad_mode: str,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
) -> Tensor:
    rest = (center, pad_mode, normalized, onesided, return_complex, align_to_window)
    key = _repeat.key_of("torch.stft", input, window, n_fft, hop_length, win_length, *rest) if _active else None
    if key is not None and (recipe := _repeat.recipe_of(key)) is not None:
        return recipe.run(input, window)
    options = (hop_length, win_length, window, *rest)
    if _overridden(input, window):
        return handle_torch_function(
            stft,
            (input, window),
            input,
            n_fft,
            hop_length=hop_length,
            win_length=win_length,
            window=window,
            center=center,
            pad_mode=pad_mode,
            normalized=normalized,
            onesided=onesided,
            return_complex=return_complex,
            align_to_window=align_to_window,
        )
    plan = plan_stft(input, n_fft, *options) if _active else _UNDONE
    if isinstance(plan, str):
        return _original("stft", plan)(input, n_fft, *options)
    if window is None:
        _warn_once("stft window")
    if return_complex is False:
        _warn_once("stft pairs")
    out = plan.run(input)
    if key is not None and window is not None and plan.onesided and plan.return_complex:
        sizes = (plan.n_fft, plan.hop_length, plan.offset, plan.pad_mode, plan.n_frames, plan.normalized)
        _repeat.learn_stft(key, input, window, *sizes, is_default=False)
    return out


def _istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    normalized: bool,
    onesided: bool | None,
    length: int | None,
    return_complex: bool,
) -> Tensor:
    rest = (center, normalized, onesided, length, return_complex)
    key = _repeat.key_of("torch.istft", input, window, n_fft, hop_length, win_length, *rest) if _active else None
    if key is not None and (recipe := _repeat.recipe_of(key)) is not None:
        known = recipe.run(input, window)
        if known is not None:
            return known
    options = (hop_length, win_length, window, *rest)
    if _overridden(input, window):
        return handle_torch_function(
            istft,
            (input, window),
            input,
            n_fft,
            hop_length=hop_length,
            win_length=win_length,
            window=window,
            center=center,
            normalized=normalized,
            onesided=onesided,
            length=length,
            return_complex=return_complex,
        )
    plan = plan_istft(input, n_fft, *options) if _active else _UNDONE
    if isinstance(plan, str):
        return _original("istft", plan)(input, n_fft, *options)
    if window is None:
        _warn_once("istft window")
    out = plan.run(input)
    if plan.too_long:
        _warn_once("istft length")
    elif key is not None and window is not None:
        sizes = (plan.n_fft, plan.hop_length, plan.offset, plan.length, plan.normalized)
        _repeat.learn_istft(key, input, window, *sizes, is_default=False)
    return out


def _original(name: str, reason: str) -> Callable[..., Tensor]:
    """The function that ours stands in front of; counts the call."""
    if not torch.compiler.is_compiling():
        count_torch_route(reason)
    return _saved.get(("torch", name)) or (_torch_stft if name == "stft" else _torch_istft)


def _overridden(*tensors: Any) -> bool:
    """Whether a tensor subclass or a mode wants to see the call; `torch.set_default_device` does not."""
    if not has_torch_function(tensors):
        return False
    if torch.compiler.is_compiling() or any(
        isinstance(t, Tensor) and type(t).__torch_function__ is not Tensor.__torch_function__ for t in tensors
    ):
        return True
    modes = torch.overrides._get_current_function_mode_stack()
    return not modes or any(type(mode) is not DeviceContext for mode in modes)


def _warn_once(kind: str) -> None:
    """Torch's own warning, from torch itself on a tiny case, so that its text and its once per process are torch's."""
    if traced() or (kind in _warned and not torch.is_warn_always_enabled()):
        return
    _warned.add(kind)
    ones = torch.ones(4, device="cpu")
    with torch.no_grad():
        if kind == "stft window":
            _torch_stft(ones, 4, center=False, return_complex=True)
        elif kind == "stft pairs":
            _torch_stft(ones, 4, window=ones, center=False, return_complex=False)
        elif kind == "istft window":
            _torch_istft(ones[:3, None] * 1j, 4, center=False)
        else:
            _torch_istft(ones[:3, None] * 1j, 4, window=ones, center=False, length=5)


# --- putting them in place --------------------------------------------------------------------------------------------

_PLACES = (
    (torch, "stft", stft),
    (torch, "istft", istft),
    (torch.functional, "stft", stft),
    (torch.functional, "istft", istft),
)


class Patch:
    """A patch in force: `undo()` ends it, as does the end of a `with` block."""

    def undo(self) -> None:
        """Ends this patch. With the last one in force torch's functions are back. Does nothing the second time."""
        global _active
        with _lock:
            if self not in _handles:
                return
            _handles.discard(self)
            if not _handles:
                _active = False
                _remove()

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def patch_torch() -> Patch:
    """Lets torch.stft, torch.istft, torch.functional.stft / istft and Tensor.stft / istft use the kernels.

    Values, shapes, strides, dtypes, warnings and exceptions stay torch's. What no kernel covers is left to torch.
    TorchScript, torch.jit.trace and torch.export see torch's functions. Names taken earlier by `from torch import
    stft` cannot be reached. Nothing is patched while MPS_SPECTRO_DISABLE=1.

    Returns:
        A handle: `handle.undo()` or the end of `with patch_torch():` takes the patch out. Patches nest, and may be
        undone in any order.
    """
    global _active
    handle = Patch()
    if _backend.disabled():
        return handle
    with _lock:
        _handles.add(handle)
        _active = True
        _install()
    return handle


def _install() -> None:
    # TorchScript takes what it finds as torch.stft when it first lists its builtins for aten::stft, which does not pad
    torch.jit._builtins._get_builtin_table()
    for module, name, ours in _PLACES:
        there = getattr(module, name)
        key = (module.__name__, name)
        # left from an earlier patch under somebody else's wrapper: it is in force again as it stands
        if there is not ours and _saved.get(key, there) is there:
            _saved[key] = there
            setattr(module, name, ours)


def _remove() -> None:
    for module, name, ours in _PLACES:
        if getattr(module, name) is ours:
            setattr(module, name, _saved.pop((module.__name__, name)))
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        # it may have listed torch's functions while ours stood in their place, and would refuse torch's own from now on
        dynamo.allow_in_graph(_torch_stft)
        dynamo.allow_in_graph(_torch_istft)
