"""`torch.mps.compile_shader` for the simulated device: the host runtime behind torch's calling convention."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensor

_MAX_BUFFERS = 31
_CASTS = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
}


class ShaderLibrary:
    """What `torch.mps.compile_shader(source)` returns: kernels as attributes.

    Raises:
        SyntaxError: the shader does not compile.
    """

    def __init__(self, source: str) -> None:
        from mps_spectro._runtime import ShaderCompileError, host

        try:
            self._library = host.compile_source(source)
        except ShaderCompileError as error:
            raise SyntaxError(f"program_source: {error}") from error

    def __getattr__(self, name: str) -> ShaderKernel:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return ShaderKernel(getattr(self._library, name))
        except AttributeError:
            raise RuntimeError(f"Failed to create function state object for: {name}") from None

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._library) if hasattr(getattr(self._library, name), "thread_execution_width")]


class ShaderKernel:
    """One kernel; called with positional arguments for buffer(0), (1), ...

    A Python int is passed as int64 and a float as float32 unless `arg_casts` names another type, lists and tuples as
    arrays of these, a tensor as the memory from its first element on. With a FakeTensor the call does nothing.

    Raises:
        RuntimeError: a limit of Metal or of torch's argument passing was passed.
    """

    thread_execution_width = 32

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.max_threads_per_threadgroup = min(kernel.max_total_threads_per_threadgroup, 1024)

    def __call__(
        self,
        *args: Any,
        threads: int | Sequence[int] | None = None,
        group_size: int | Sequence[int] | None = None,
        arg_casts: str | dict[int, str] | None = None,
        error_buf_idx: int | None = None,
    ) -> None:
        if len(args) > _MAX_BUFFERS:
            raise RuntimeError(f"Metal binds at most {_MAX_BUFFERS} buffers, got {len(args)} arguments")
        if any(isinstance(arg, torch.Tensor) and (isinstance(arg, FakeTensor) or arg.is_meta) for arg in args):
            return
        values = [_value(arg, _cast_of(arg_casts, index)) for index, arg in enumerate(args)]
        grid = _sizes(threads)
        if grid is None:
            first = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
            if first is None:
                raise RuntimeError("Number of threads is undefined or has wrong dimension")
            grid = (first.numel(),)
        group = _sizes(group_size) or (min(grid[0], self.max_threads_per_threadgroup), 1, 1)[: len(grid)]
        if len(grid) != len(group):
            raise RuntimeError(f"threads has rank {len(grid)} and group_size rank {len(group)}")
        count = 1
        for size in group:
            count *= size
        if count > self.max_threads_per_threadgroup:
            raise RuntimeError(f"{count} threads per threadgroup, the limit is {self.max_threads_per_threadgroup}")
        self._kernel(*values, threads=grid, group_size=group)


def _sizes(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(sizes) <= 3:
        raise RuntimeError("Number of threads is undefined or has wrong dimension")
    return sizes


def _cast_of(arg_casts: str | dict[int, str] | None, index: int) -> torch.dtype | None:
    name = arg_casts.get(index) if isinstance(arg_casts, dict) else arg_casts
    if name is None:
        return None
    if name not in _CASTS:
        raise RuntimeError(f"Unsupported cast instruction {name}")
    return _CASTS[name]


def _value(arg: Any, cast: torch.dtype | None) -> Any:
    """The argument as the host runtime takes it."""
    if isinstance(arg, torch.Tensor):
        return _memory(arg)
    numbers = list(arg) if isinstance(arg, (list, tuple)) else [arg]
    if not numbers:
        raise RuntimeError("Empty list/tuple can not be an argument to metal kernel")
    if isinstance(numbers[0], float):
        numbers = [float(number) for number in numbers]
    elif isinstance(numbers[0], int):
        if not all(isinstance(number, int) for number in numbers):
            raise RuntimeError(f"Unable to cast {arg!r} to an array of int64")
        numbers = [int(number) for number in numbers]  # bool is an int
    else:
        raise RuntimeError("Unsupported argument type")
    if cast is None:
        return numbers
    # as in C, a cast of a float to an integer type drops its fraction
    return torch.tensor(numbers if cast.is_floating_point else [int(number) for number in numbers], dtype=cast)


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes from the tensor's first element to the end of its last one, as a CPU tensor."""
    if tensor.device.type != "mps":
        if tensor.device.type == "cpu" and tensor.dim() == 0:
            return tensor.float() if tensor.dtype == torch.float64 else tensor
        raise RuntimeError("Passed CPU tensor to MPS op")
    if tensor.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    size = (last + 1) * tensor.element_size()
    return torch.frombuffer((ctypes.c_char * size).from_address(tensor.data_ptr()), dtype=torch.uint8)
