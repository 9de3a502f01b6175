"""Runs shaders on NVIDIA: translated to CUDA C++, compiled by NVRTC, launched through the driver.

A launch costs a few microseconds: one struct.pack into a prepared buffer of this thread and one driver call. Nothing is
allocated on the device and nothing waits, so launches can be captured in CUDA graphs.
"""

from __future__ import annotations

import re
import struct
import threading
from ctypes import addressof, c_char, c_uint64, c_void_p
from typing import Any, Sequence

import torch

from . import cuda_driver, nvrtc
from .translate import Kernel as Signature
from .translate import translate

_INTS, _FLOATS = 32, 8  # capacity of mps_ints and mps_floats in support/cuda.h
_SLOT_BYTES = {"tensor": 8, "ints": 8 * _INTS, "floats": 4 * _FLOATS, "int": 8, "float": 8}
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_MAX_GROUPS = 2**31 - 1
_NO_CONTEXT = (201, 400)  # CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE


def _current_device() -> int:
    return torch._C._cuda_getDevice()


def _current_stream(device: int) -> int:
    return torch._C._cuda_getCurrentRawStream(device)


def _format(signature: Signature, lengths: Sequence[int]) -> str:
    """The struct format of a launch's arguments in declared order; `lengths` are those of its tuples in order."""
    remaining = list(lengths)
    pieces = ["="]
    for parameter in signature.parameters:
        if parameter.kind in ("ints", "floats"):
            count = remaining.pop(0)
            code, width, capacity = ("q", 8, _INTS) if parameter.kind == "ints" else ("f", 4, _FLOATS)
            if count > capacity:
                raise ValueError(
                    f"{signature.name}: {parameter.name} takes at most {capacity} {parameter.kind}, got {count}"
                )
            pieces.append(f"{count}{code}{(capacity - count) * width}x")
        else:
            pieces.append({"tensor": "Q", "int": "q", "float": "f4x"}[parameter.kind])
    return "".join(pieces)


def _dimensions(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


class _Arguments:
    """Where one thread puts the arguments of one kernel: a buffer and the pointers into it that the driver reads."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        sizes = [_SLOT_BYTES[parameter.kind] for parameter in signature.parameters]
        self.buffer = (c_char * max(8, sum(sizes)))()
        start = addressof(self.buffer)
        self.pointers = (c_void_p * max(1, len(sizes)))(*(start + sum(sizes[:i]) for i in range(len(sizes))))
        self.lengths: tuple[int, ...] | None = None
        self.stream = 0
        self.stream_pointer = c_void_p(0)

    def set_lengths(self, lengths: tuple[int, ...]) -> None:
        """Chooses how long the tuples are that the next `pack_into` takes."""
        self.pack_into = struct.Struct(_format(self._signature, lengths)).pack_into
        self.lengths = lengths


def _skip(tensors: Sequence[Any]) -> bool:
    """True for fake and meta tensors, whose launch is nothing at all, as in torch.mps.

    Raises:
        TypeError: something is no tensor.
        RuntimeError: the tensors are not all on one CUDA device.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"a kernel's device arguments are tensors, got {type(tensor).__name__}")
    if any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in tensors):
        return True
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1 or not tensors[0].is_cuda:
        raise RuntimeError(f"a kernel takes tensors of one CUDA device, got {', '.join(devices)}")
    return False


class Kernel:
    """One kernel of a library, callable like those of `torch.mps.compile_shader`."""

    def __init__(self, library: Library, signature: Signature) -> None:
        self._library = library
        self.signature = signature
        self.name = signature.name
        self._kinds = [parameter.kind for parameter in signature.parameters]
        self._tensors = self._kinds.count("tensor")
        tail = self._kinds[self._tensors :]
        self._fast = self._tensors > 0 and tail in ([], ["ints"], ["ints", "floats"])
        self._tuples = len(tail)
        self._functions: dict[int, c_void_p] = {}
        self._local = threading.local()
        self._launch = library.driver.launch

    def __call__(self, *args: Any, threads: int | Sequence[int], group_size: int | Sequence[int]) -> None:
        """Launches the kernel on the current stream of its tensors' device.

        Args:
            args: one per buffer: tensors (bound at their storage offset), an int, a float, or a tuple of one of them.
            threads: threads in total, up to three dimensions; whole groups only.
            group_size: threads per group, of the same rank.
        """
        totals, sizes = _dimensions(threads), _dimensions(group_size)
        if len(totals) != len(sizes) or not 1 <= len(totals) <= 3:
            raise ValueError(f"threads {threads} and group_size {group_size} must have the same rank, 1 to 3")
        if len(args) != len(self._kinds):
            names = ", ".join(parameter.name for parameter in self.signature.parameters)
            raise TypeError(f"{self.name} takes {len(self._kinds)} arguments ({names}), got {len(args)}")
        if any(size < 1 or total < 0 or total % size for total, size in zip(totals, sizes)):
            raise ValueError(f"threads {threads} must be whole groups of {group_size}: pad the grid")
        groups = [total // size for total, size in zip(totals, sizes)]
        if self._fast and len(groups) == 1:
            ints, floats = (*args[self._tensors :], (), ())[:2]
            self.launch(args[: self._tensors], ints, floats, groups[0], sizes[0])
        else:
            rest = [1] * (3 - len(groups))
            self._launch_any(args, [*groups, *rest], [*sizes, *rest])

    def launch(
        self,
        tensors: Sequence[torch.Tensor],
        ints: Sequence[int] = (),
        floats: Sequence[float] = (),
        groups: int = 1,
        group_size: int = 1,
    ) -> None:
        """The short way for kernels whose buffers are tensors, then a tuple of ints, then a tuple of floats.

        Args:
            tensors: the device buffers in order, all on one CUDA device.
            ints: at most 32, `constant long* p`.
            floats: at most 8, `constant float* q`.
            groups: groups in the (one-dimensional) grid; 0 does nothing.
            group_size: threads per group.
        """
        if not self._fast:
            raise TypeError(f"{self.name} does not take tensors, ints, floats in this order: call it instead")
        try:
            device = tensors[0].get_device()
            for tensor in tensors:
                if tensor.get_device() != device or device < 0 or type(tensor) not in _PLAIN:
                    if _skip(tensors):
                        return
                    break
        except (AttributeError, IndexError):
            raise TypeError(f"{self.name} takes {self._tensors} tensors first, got {tensors!r}") from None
        try:
            arguments = self._local.arguments
        except AttributeError:
            arguments = self._local.arguments = _Arguments(self.signature)
        lengths = (len(ints), len(floats))[: self._tuples]
        if lengths != arguments.lengths:
            arguments.set_lengths(lengths)
        try:
            arguments.pack_into(arguments.buffer, 0, *[tensor.data_ptr() for tensor in tensors], *ints, *floats)
        except struct.error as error:
            raise TypeError(f"{self.name}: {len(tensors)} tensors, ints {ints}, floats {floats}: {error}") from None
        self._enqueue(arguments, device, groups, 1, 1, group_size, 1, 1)

    def bind(self, ints: tuple[int, ...], floats: tuple[float, ...], groups: int, group_size: int) -> Bound:
        """A launch with all but the tensors decided, for calls that repeat; arguments as for `launch`."""
        if not self._fast or self._tuples != 2:
            raise TypeError(f"{self.name} does not take tensors, ints, floats in this order: call it instead")
        return Bound(self, ints, floats, groups, group_size)

    def _launch_any(self, args: Sequence[Any], groups: list[int], sizes: list[int]) -> None:
        """Any mixture of arguments, any rank."""
        tensors = [arg for arg, kind in zip(args, self._kinds) if kind == "tensor"]
        if tensors and _skip(tensors):
            return
        device = tensors[0].get_device() if tensors else _current_device()
        values: list[Any] = []
        lengths: list[int] = []
        for arg, parameter in zip(args, self.signature.parameters):
            if parameter.kind == "tensor":
                values.append(arg.data_ptr())
            elif parameter.kind in ("ints", "floats"):
                if not isinstance(arg, (tuple, list)):
                    raise TypeError(f"{self.name}: {parameter.name} takes a tuple, got {type(arg).__name__}")
                values += arg
                lengths.append(len(arg))
            else:
                values.append(arg)
        arguments = _Arguments(self.signature)
        arguments.set_lengths(tuple(lengths))
        try:
            arguments.pack_into(arguments.buffer, 0, *values)
        except struct.error as error:
            raise TypeError(f"{self.name}: {error}") from None
        self._enqueue(arguments, device, *groups, *sizes)

    def _enqueue(self, arguments: _Arguments, device: int, gx: int, gy: int, gz: int, x: int, y: int, z: int) -> None:
        # ctypes would cut larger numbers to 32 bits without a word
        if not (0 < gx <= _MAX_GROUPS and 0 < gy <= _MAX_GROUPS and 0 < gz <= _MAX_GROUPS and 0 < x * y * z <= 1024):
            if min(gx, gy, gz) == 0:
                return
            raise ValueError(f"{self.name}: {(gx, gy, gz)} groups of {(x, y, z)} threads are beyond the limits of CUDA")
        if y * z > 1 and self._library.linear:
            raise ValueError(f"{self.name}: groups must be (n, 1, 1) where a shader defines RESIDENT, got {(x, y, z)}")
        function = self._functions.get(device)
        if function is None:
            function = self._functions[device] = self._library.function(self.name, device)
        stream = _current_stream(device)
        if stream != arguments.stream:
            arguments.stream = stream
            arguments.stream_pointer = c_void_p(stream)
        pointer, pointers = arguments.stream_pointer, arguments.pointers
        status = None
        if _current_device() == device:
            status = self._launch(function, gx, gy, gz, x, y, z, 0, pointer, pointers, None)
            if status == 0:
                return
        driver = self._library.driver
        if status in _NO_CONTEXT:
            # a thread on which torch has not run yet has no context, or the caller made another one current
            driver.adopt(device)
            status = None
        if status is None:
            with driver.inside(device):
                status = self._launch(function, gx, gy, gz, x, y, z, 0, pointer, pointers, None)
        if status:
            why = driver.error_text(status)
            raise RuntimeError(f"launching {self.name}, {(gx, gy, gz)} groups of {(x, y, z)} threads: {why}")

    def attributes(self, device: int | None = None) -> dict[str, int]:
        """What the compiler made of it: registers, local_bytes (spills), shared_bytes, constant_bytes, max_threads."""
        device = _current_device() if device is None else device
        return self._library.driver.attributes(self._library.function(self.name, device), device)

    def resident_groups(self, group_size: int, device: int | None = None) -> int:
        """Groups of this size that one multiprocessor holds at a time."""
        device = _current_device() if device is None else device
        return self._library.driver.resident_groups(self._library.function(self.name, device), group_size, device)


class Bound:
    """A kernel with its numbers and its grid: call it with the tensors, all on one CUDA device."""

    def __init__(
        self, kernel: Kernel, ints: tuple[int, ...], floats: tuple[float, ...], groups: int, group_size: int
    ) -> None:
        self._kernel = kernel
        self._ints, self._floats = ints, floats
        self._groups, self._group_size = groups, group_size
        self._local = threading.local()

    def _arguments(self) -> tuple[_Arguments, Any]:
        """This thread's buffer, the numbers packed in, and its part for the addresses of the tensors."""
        kernel = self._kernel
        arguments = _Arguments(kernel.signature)
        arguments.set_lengths((len(self._ints), len(self._floats)))
        arguments.pack_into(arguments.buffer, 0, *(0,) * kernel._tensors, *self._ints, *self._floats)
        self._local.pair = arguments, (c_uint64 * kernel._tensors).from_buffer(arguments.buffer)
        return self._local.pair

    def __call__(self, *tensors: torch.Tensor) -> None:
        if type(tensors[0]) not in _PLAIN and _skip(tensors):
            return
        try:
            arguments, addresses = self._local.pair
        except AttributeError:
            arguments, addresses = self._arguments()
        addresses[:] = [tensor.data_ptr() for tensor in tensors]
        self._kernel._enqueue(arguments, tensors[0].get_device(), self._groups, 1, 1, self._group_size, 1, 1)


class Library:
    """A compiled shader; its kernels are attributes. Works on every CUDA device of the process.

    Args:
        source: complete shader text.
        driver: the driver to load and launch with.
    """

    def __init__(self, source: str, driver: cuda_driver.Driver) -> None:
        translation = translate(source, "cuda")
        # how many groups should fit a multiprocessor bounds the registers of a thread; Metal has no such hint. Groups
        # of shaders that say so are one line of threads, which then have their number for nothing
        resident = re.search(r"^#define RESIDENT (\d+)$", source, re.MULTILINE)
        self.linear = resident is not None
        head = f"#define MPS_RESIDENT {resident.group(1)}\n#define MPS_LINEAR 1\n" if resident else ""
        self.text = head + translation.text
        self.driver = driver
        self._lock = threading.RLock()
        self._programs: dict[int, nvrtc.Program] = {}
        self._functions: dict[int, dict[str, c_void_p]] = {}
        self._kernels = {signature.name: Kernel(self, signature) for signature in translation.kernels}

    def __getattr__(self, name: str) -> Kernel:
        kernels = self.__dict__.get("_kernels", {})
        if name not in kernels:
            raise AttributeError(f"the shader has no kernel {name!r}; it has {', '.join(kernels) or 'none'}")
        return kernels[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._kernels]

    def program(self, device: int | None = None) -> nvrtc.Program:
        """What NVRTC made for a device: `image` (cubin), `ptx`, `log`. For disassembly and reports."""
        device = _current_device() if device is None else device
        major, minor = torch.cuda.get_device_capability(device)
        capability = 10 * major + minor
        with self._lock:
            if capability not in self._programs:
                self._programs[capability] = nvrtc.compile_text(self.text, capability)
            return self._programs[capability]

    def load(self, device: int) -> dict[str, c_void_p]:
        """The driver's handles of the kernels on a device, compiled and loaded there on first use."""
        with self._lock:
            if device not in self._functions:
                image = self.program(device).image
                self._functions[device] = self.driver.load(image, tuple(self._kernels), device)
            return self._functions[device]

    def function(self, name: str, device: int) -> c_void_p:
        """The driver's handle of one kernel on a device."""
        return self.load(device)[name]

    def info(self, device: int | None = None) -> dict[str, dict[str, int]]:
        """`Kernel.attributes` of every kernel by name."""
        return {name: kernel.attributes(device) for name, kernel in self._kernels.items()}


def compile_source(source: str, device: int | None = None) -> Library:
    """Compiles complete shader text for a CUDA device; other devices follow on first use.

    Args:
        source: the shader, defines in front and own includes inlined.
        device: index of the device, None for the current one.

    Raises:
        RuntimeUnavailable: no CUDA device, driver or NVRTC.
        ShaderCompileError: the shader is outside the subset or does not compile.
    """
    library = Library(source, cuda_driver.driver())
    library.load(_current_device() if device is None else device)
    return library
