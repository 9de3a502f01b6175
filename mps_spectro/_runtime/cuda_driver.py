"""The part of the CUDA driver that launching needs, by ctypes, inside the primary contexts that torch uses."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any, Iterator

import torch

from . import RuntimeUnavailable

# cuLaunchKernel is absent on purpose: without argtypes a call costs half as much
_SIGNATURES: dict[str, list[Any]] = {
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(c_void_p), c_int],
    "cuCtxGetCurrent": [POINTER(c_void_p)],
    "cuCtxSetCurrent": [c_void_p],
    "cuCtxPushCurrent_v2": [c_void_p],
    "cuCtxPopCurrent_v2": [POINTER(c_void_p)],
    "cuModuleLoadData": [POINTER(c_void_p), c_char_p],
    "cuModuleGetFunction": [POINTER(c_void_p), c_void_p, c_char_p],
    "cuFuncGetAttribute": [POINTER(c_int), c_int, c_void_p],
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": [POINTER(c_int), c_void_p, c_int, c_size_t],
    "cuThreadExchangeStreamCaptureMode": [POINTER(c_uint)],
    "cuGetErrorString": [c_int, POINTER(c_char_p)],
}
_ATTRIBUTES = {"max_threads": 0, "shared_bytes": 1, "constant_bytes": 2, "local_bytes": 3, "registers": 4}
_CAPTURE_MODE_RELAXED = 2


class Driver:
    """libcuda with checked calls; one instance per process.

    Args:
        library: what offers the `cu...` functions.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, types in _SIGNATURES.items():
            getattr(library, name).argtypes = types
        self.launch = library.cuLaunchKernel
        self._contexts: dict[int, c_void_p] = {}
        self._lock = threading.Lock()

    def error_text(self, status: int) -> str:
        """What a status means."""
        text = c_char_p()
        self._library.cuGetErrorString(status, byref(text))
        return f"{text.value.decode()} (CUDA error {status})" if text.value else f"CUDA error {status}"

    def call(self, name: str, *args: Any) -> None:
        """Calls a function of the driver; a status other than success is a RuntimeError."""
        status = getattr(self._library, name)(*args)
        if status:
            raise RuntimeError(f"{name}: {self.error_text(status)}")

    def context(self, device: int) -> c_void_p:
        """The primary context of a device, which is the one torch works in."""
        with self._lock:
            if device not in self._contexts:
                ordinal, context = c_int(), c_void_p()
                self.call("cuDeviceGet", byref(ordinal), device)
                self.call("cuDevicePrimaryCtxRetain", byref(context), ordinal)
                self._contexts[device] = context
            return self._contexts[device]

    @contextlib.contextmanager
    def inside(self, device: int) -> Iterator[None]:
        """Makes the device's context current for a `with` block."""
        self.call("cuCtxPushCurrent_v2", self.context(device))
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def adopt(self, device: int) -> None:
        """Gives a thread that has no context yet the device's, as torch's first call on the thread would."""
        current = c_void_p()
        self.call("cuCtxGetCurrent", byref(current))
        if not current.value:
            self.call("cuCtxSetCurrent", self.context(device))

    def load(self, image: bytes, names: tuple[str, ...], device: int) -> dict[str, c_void_p]:
        """Loads an image on a device and returns its functions.

        It is never unloaded: a captured CUDA graph may hold its functions longer than any Python object does.
        """
        module = c_void_p()
        functions = {name: c_void_p() for name in names}
        # a first call inside a graph capture loads code, which strict capture modes would refuse
        mode = c_uint(_CAPTURE_MODE_RELAXED)
        with self.inside(device):
            self.call("cuThreadExchangeStreamCaptureMode", byref(mode))
            try:
                status = self._library.cuModuleLoadData(byref(module), image)
                if status:
                    raise RuntimeUnavailable(f"the driver refuses the compiled shader: {self.error_text(status)}")
                for name, function in functions.items():
                    self.call("cuModuleGetFunction", byref(function), module, name.encode())
                    # the driver loads functions lazily; asking forces it now and not at the first launch
                    self.attributes(function, device)
            finally:
                self.call("cuThreadExchangeStreamCaptureMode", byref(mode))
        return functions

    def attributes(self, function: c_void_p, device: int) -> dict[str, int]:
        """Registers, local (spill), shared and constant bytes and the largest group of a function."""
        values = {}
        with self.inside(device):
            for name, number in _ATTRIBUTES.items():
                value = c_int()
                self.call("cuFuncGetAttribute", byref(value), number, function)
                values[name] = value.value
        return values

    def resident_groups(self, function: c_void_p, group_size: int, device: int) -> int:
        """Groups that one multiprocessor of the device holds at a time."""
        value = c_int()
        with self.inside(device):
            self.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(value), function, group_size, 0)
        return value.value


@functools.lru_cache(maxsize=1)
def driver() -> Driver:
    """The driver of this machine.

    Raises:
        RuntimeUnavailable: there is none, or torch has no CUDA device to share it with.
    """
    if torch.version.hip:
        raise RuntimeUnavailable("this torch is built for ROCm; the CUDA runtime needs an NVIDIA device")
    if not torch.cuda.is_available():
        raise RuntimeUnavailable("torch sees no CUDA device")
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return Driver(ctypes.CDLL(name))
    except (OSError, AttributeError) as error:
        raise RuntimeUnavailable(f"the CUDA driver does not load: {error}") from error
