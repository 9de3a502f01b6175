"""A simulated "mps" device on host memory, so that the code that runs on a Mac runs in tests on any machine.

    import simulated_mps
    if simulated_mps.available():
        simulated_mps.install()
    x = torch.randn(4, device="mps")        # x.device == torch.device("mps", 0)

What is real: the device of the tensors and all of torch above its kernels (autograd, autocast, FakeTensor,
torch.compile). What is not: operators run torch's CPU kernels, and `torch.mps.compile_shader` translates the shader
and runs it on the CPU. Fresh memory is filled with NaN and fenced by guard bytes. The limits that bite on a Mac are
imitated: no float64, no mixing with CPU tensors, no operator of another namespace without its own MPS kernel.

Installing cannot be undone. It leaves CPU tensors alone, with one exception that a Mac has too: after the first
backward pass the autograd engine owns a device thread, so a forked child cannot run another backward pass.
"""

from __future__ import annotations

import ctypes
import sys
import threading

import torch

from . import build, patches

_lock = threading.Lock()
_library: ctypes.CDLL | None = None


def why_unavailable() -> str | None:
    """The reason why the device cannot be simulated here, None when it can (or already is)."""
    if _library is not None:
        return None
    if torch.backends.mps.is_available():
        return "this machine has a real MPS device"
    if sys.platform != "linux":
        return f"the simulated MPS device is made for Linux, this is {sys.platform}"
    if build.compiler() is None:
        return "the simulated MPS device needs a C++ compiler"
    return None


def available() -> bool:
    """Whether `install` can work here."""
    return why_unavailable() is None


def installed() -> bool:
    """Whether "mps" is the simulated device in this process."""
    return _library is not None


def install() -> None:
    """Makes "mps" the simulated device for the rest of this process; does nothing the second time.

    The first call on a machine compiles the device (half a minute), later ones load it from the cache.

    Raises:
        RuntimeError: it cannot work here, see `why_unavailable`, or it does not compile.
    """
    global _library
    with _lock:
        if _library is not None:
            return
        why = why_unavailable()
        if why is not None:
            raise RuntimeError(why)
        library = ctypes.CDLL(str(build.library()))
        library.simulated_mps_attach.restype = ctypes.c_char_p
        library.simulated_mps_broken_guards.restype = ctypes.c_size_t
        library.simulated_mps_host_reads.restype = ctypes.c_size_t
        error = library.simulated_mps_attach()
        if error is not None:
            raise RuntimeError(error.decode(errors="replace"))
        patches.apply()
        _library = library


def _installed() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError("simulated_mps.install() was not called")
    return _library


def broken_guards() -> int:
    """Blocks of device memory (freed ones included) whose guard bytes were overwritten since `install`."""
    return int(_installed().simulated_mps_broken_guards())


def host_reads() -> int:
    """How many values and tensors went to the host since `install`: each makes a Mac wait for its GPU."""
    return int(_installed().simulated_mps_host_reads())
