"""Runs shaders on the CPU: translated to C++, compiled by the C++ compiler, loaded by ctypes.

This is for tests on any machine, not for speed. `checked=True` compiles the same shader with bounds, races, barriers
and never-written threadgroup memory checked (support/checked.h), groups and threads in an order that the seed decides.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from typing import Any, Sequence

import torch

from ._compiler import shared_object
from .counters import Counters, blank, counters
from .faults import Fault, ShaderFault, shader_fault
from .translate import Kernel, translate

__all__ = ["HostKernel", "HostLibrary", "ShaderFault", "compile_source"]

MAX_THREADS = 1024
_NO_METAL_DTYPE = (torch.float64, torch.complex128)
_INT64 = range(-(2**63), 2**63)


# mirrors of the structures in support/fibers.h
class _Argument(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_int64), ("writable", ctypes.c_int64)]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("arguments", ctypes.POINTER(_Argument)),
        ("threads", ctypes.c_uint * 3),
        ("group", ctypes.c_uint * 3),
        ("arena", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("fault", ctypes.POINTER(Fault)),
        ("argument_count", ctypes.c_int64),
        ("counters", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Arenas:
    """Memory for the stacks and the state of a launch. One launch has one arena to itself; free ones are used again."""

    _KEPT = 4

    def __init__(self) -> None:
        self._free: list[tuple[int, mmap.mmap]] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> mmap.mmap:
        with self._lock:
            for position, (free_size, arena) in enumerate(self._free):
                if free_size == size:
                    del self._free[position]
                    return arena
        # reserved, not committed: a launch touches a page or two of each stack
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        arena = mmap.mmap(-1, size, flags=flags)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            try:
                arena.madvise(mmap.MADV_NOHUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages
        return arena

    def give_back(self, size: int, arena: mmap.mmap) -> None:
        with self._lock:
            if len(self._free) < self._KEPT:
                self._free.append((size, arena))


_arenas = _Arenas()


class HostKernel:
    """One kernel of a library, called as a kernel of `torch.mps.compile_shader` is."""

    def __init__(self, library: HostLibrary, kernel: Kernel) -> None:
        self._library = library
        self._kernel = kernel
        self._launch = getattr(library.shared, f"mps_launch_{kernel.name}")
        self._launch.argtypes = [ctypes.POINTER(_Launch)]
        self._launch.restype = None
        self.max_total_threads_per_threadgroup = ctypes.c_int.in_dll(library.shared, f"mps_limit_{kernel.name}").value
        self.thread_execution_width = 32

    def __call__(self, *args: Any, threads: int | Sequence[int], group_size: int | Sequence[int]) -> None:
        """Runs the kernel to its end.

        Args:
            args: for buffer(0), (1), ...: CPU tensors (bound at their storage offset, strides ignored), ints, floats,
                lists or tuples of ints or of floats.
            threads: threads in all, up to three dimensions.
            group_size: threads per group, of the same rank; the last group of a dimension may be partial.

        Raises:
            TypeError: wrong number or kind of arguments.
            ValueError: impossible sizes.
            ShaderFault: see there; without `checked` only for barriers and the size of threadgroup memory.
        """
        grid, group = _dimensions("threads", threads), _dimensions("group_size", group_size)
        if len(grid) != len(group):
            raise ValueError(f"threads has rank {len(grid)} and group_size rank {len(group)}; they must be the same")
        limit = min(self.max_total_threads_per_threadgroup, MAX_THREADS)
        count = group[0] * (group[1] if len(group) > 1 else 1) * (group[2] if len(group) > 2 else 1)
        if count > limit:
            raise ValueError(f"kernel {self._kernel.name} takes at most {limit} threads per group, got {count}")
        bound = self._bind(args)
        if bound is None:
            return
        values, _alive = bound
        fault = Fault()
        size = self._library.arena_bytes
        arena = _arenas.take(size)
        view = ctypes.c_char.from_buffer(arena)
        launch = _Launch(
            arguments=values,
            threads=(ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid))),
            group=(ctypes.c_uint * 3)(*group, *[1] * (3 - len(group))),
            arena=ctypes.addressof(view),
            seed=self._library.seed,
            fault=ctypes.pointer(fault),
            argument_count=len(args),
        )
        counted = blank(len(args)) if self._library.counted else None
        if counted is not None:
            launch.counters = counted
        self._launch(ctypes.byref(launch))  # ctypes lets other Python threads run meanwhile
        del view
        _arenas.give_back(size, arena)
        if fault.kind:
            raise shader_fault(self._kernel, fault)
        if counted is not None:
            self._library.counters.append(counters(self._kernel, counted))

    def _bind(self, args: tuple[Any, ...]) -> tuple[Any, list[Any]] | None:
        """The arguments as C sees them, with what must stay alive; None when some are not real memory."""
        parameters = self._kernel.parameters
        if len(args) != len(parameters):
            names = ", ".join(parameter.name for parameter in parameters)
            raise TypeError(f"kernel {self._kernel.name} takes {len(parameters)} arguments ({names}), got {len(args)}")
        values = (_Argument * max(len(args), 1))()
        alive: list[Any] = []
        real = True
        for index, (parameter, value) in enumerate(zip(parameters, args)):
            what = f"argument {index} ({parameter.name}) of kernel {self._kernel.name}"
            if parameter.kind == "tensor":
                if not isinstance(value, torch.Tensor):
                    raise TypeError(f"{what} must be a tensor, got {type(value).__name__}")
                if _is_abstract(value):
                    real = False
                    continue
                if value.device.type != "cpu":
                    raise TypeError(f"{what} must be a CPU tensor, got one on {value.device}")
                if value.dtype in _NO_METAL_DTYPE:
                    raise TypeError(f"{what} is {value.dtype}, which Metal does not have")
                values[index] = _Argument(value.data_ptr() or None, _extent(value), parameter.writable)
            else:
                array = _array(what, value, integers=parameter.kind in ("int", "ints"))
                alive.append(array)
                values[index] = _Argument(ctypes.addressof(array), ctypes.sizeof(array), False)
        return (values, alive) if real else None


class HostLibrary:
    """The kernels of one compiled shader, as attributes; `counters` has an entry per launch if they are `counted`."""

    def __init__(self, kernels: tuple[Kernel, ...], shared: ctypes.CDLL, seed: int, counted: bool) -> None:
        self.shared = shared
        self.seed = seed
        self.counted = counted
        self.counters: list[Counters] = []
        shared.mps_arena_bytes.argtypes = [ctypes.c_size_t]
        shared.mps_arena_bytes.restype = ctypes.c_size_t
        self.arena_bytes = int(shared.mps_arena_bytes(MAX_THREADS))
        self._kernels = {kernel.name: kernel for kernel in kernels}
        self._made: dict[str, HostKernel] = {}

    def __getattr__(self, name: str) -> HostKernel:
        made: dict[str, HostKernel] = self.__dict__.get("_made", {})
        if name not in made:
            kernels = self.__dict__.get("_kernels", {})
            # a kernel may also be missing because the preprocessor dropped it
            if name not in kernels or not hasattr(self.shared, f"mps_launch_{name}"):
                raise AttributeError(f"the shader has no kernel {name!r}; it has {', '.join(kernels) or 'none'}")
            made[name] = HostKernel(self, kernels[name])
        return made[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._kernels]


def compile_source(source: str, *, checked: bool = False, seed: int = 0, counted: bool = False) -> HostLibrary:
    """Compiles complete shader text for the CPU.

    Args:
        source: the shader, in the subset of shaders/README.md.
        checked: check every access and barrier; some 10 times slower.
        seed: of the order in which a checked launch runs its groups and threads.
        counted: check, and count the memory traffic and the barriers of every launch into `counters`.

    Raises:
        RuntimeUnavailable: no C++ compiler here.
        ShaderCompileError: the shader does not compile.
    """
    translation = translate(source, "checked" if checked or counted else "host")
    return HostLibrary(translation.kernels, shared_object(translation.text), seed, counted)


def _dimensions(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"{name} must have one to three dimensions, got {value!r}")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < 2**32:
            raise ValueError(f"{name} must be positive integers below 2**32, got {value!r}")
    return sizes


def _is_abstract(tensor: torch.Tensor) -> bool:
    """True for tensors without memory: tracing launches kernels with them, and nothing may happen."""
    if tensor.is_meta:
        return True
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return False
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last one in memory."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return (last + 1) * tensor.element_size()


def _array(what: str, value: Any, integers: bool) -> Any:
    """An int64 or float32 array of a number or of a list or tuple of numbers."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not numbers:
        raise ValueError(f"{what} is empty")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int if integers else float):
            kind = "an int or a list or tuple of ints" if integers else "a float or a list or tuple of floats"
            raise TypeError(f"{what} must be {kind}, got {value!r}")
        if integers and number not in _INT64:
            raise ValueError(f"{what} does not fit in 64 bits: {number}")
    return ((ctypes.c_int64 if integers else ctypes.c_float) * len(numbers))(*numbers)
