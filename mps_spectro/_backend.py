"""Which runtime answers a call: metal, cuda, host or torch."""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar
from typing import Iterator

BACKENDS = ("auto", "metal", "cuda", "host", "torch")
_BY_DEVICE = {"mps": "metal", "cuda": "cuda", "cpu": "torch"}
_DEVICE_OF = {"metal": "mps", "cuda": "cuda", "host": "cpu"}
try:  # the mapping that os.environ wraps: the wrapper's own look-up of a missing name takes longer than a launch
    _environment = os.environ._data.get  # type: ignore[attr-defined]
    _DISABLE, _BACKEND = map(os.environ.encodekey, ("MPS_SPECTRO_DISABLE", "MPS_SPECTRO_BACKEND"))
except AttributeError:
    _environment = os.environ.get
    _DISABLE, _BACKEND = "MPS_SPECTRO_DISABLE", "MPS_SPECTRO_BACKEND"
_chosen: ContextVar[str | None] = ContextVar("mps_spectro_backend", default=None)


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def disabled() -> bool:
    """True when MPS_SPECTRO_DISABLE=1 (or true/yes/on) switches every kernel and the patch off."""
    return os.environ.get("MPS_SPECTRO_DISABLE", "").lower() in ("1", "true", "yes", "on")


def requested() -> str:
    """The backend asked for by `use_backend` or MPS_SPECTRO_BACKEND, else "auto"."""
    chosen = _chosen.get()
    if chosen is None:
        chosen = os.environ.get("MPS_SPECTRO_BACKEND")
        chosen = "auto" if not chosen else _checked(chosen, "MPS_SPECTRO_BACKEND")
    return chosen


def select(device_type: str) -> str:
    """The runtime for tensors of this device type: "metal", "cuda", "host" or "torch".

    An explicit choice that cannot run on the device is a RuntimeError; "auto" takes torch there.
    """
    if disabled():
        return "torch"
    name = requested()
    if name == "auto":
        return _BY_DEVICE.get(device_type, "torch")
    if name != "torch" and _DEVICE_OF[name] != device_type:
        raise RuntimeError(
            f"backend {name!r} runs on {_DEVICE_OF[name]} tensors, got a {device_type} tensor; "
            f"use 'auto' to choose by device"
        )
    return name


def explicit() -> bool:
    """True when a kernel backend was asked for by name, so a failure must be an error and not a fallback."""
    return requested() in _DEVICE_OF


def settings() -> tuple[object, ...]:
    """Everything that `select` depends on but the device, unread: two calls with equal settings select alike."""
    return _chosen.get(), _environment(_DISABLE), _environment(_BACKEND)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Chooses the runtime inside a `with` block, for this thread or task.

    Args:
        name: "auto" (by the tensor's device: mps -> metal, cuda -> cuda, cpu -> torch), "metal", "cuda",
            "host" (the shaders, compiled by the C++ compiler, on CPU tensors) or "torch".

    Raises:
        ValueError: unknown name.
    """
    token = _chosen.set(_checked(name, "use_backend(name)"))
    try:
        yield
    finally:
        _chosen.reset(token)
