"""What a launch on the host runtime reports when a shader does what the language leaves undefined."""

from __future__ import annotations

import ctypes
from typing import Any

from .translate import Kernel


class ShaderFault(RuntimeError):
    """A shader did what the language leaves undefined; the launch was abandoned at the first such act.

    Attributes:
        kernel: name of the kernel.
        kind: "out of bounds", "misaligned", "uninitialised", "race", "race between groups", "divergent barrier",
            "threadgroup memory" or "lane".
        array: parameter or threadgroup array that was touched, None for barriers.
        buffer: index of the parameter, None for threadgroup memory and barriers.
        index: element of the array, counted in the type of the access, or None.
        group: (x, y, z) of the group.
        thread: index of the thread in the group.
    """

    def __init__(self, message: str, **where: Any) -> None:
        super().__init__(message)
        self.kernel: str = where["kernel"]
        self.kind: str = where["kind"]
        self.array: str | None = where["array"]
        self.buffer: int | None = where["buffer"]
        self.index: int | None = where["index"]
        self.group: tuple[int, int, int] = where["group"]
        self.thread: int = where["thread"]


class Fault(ctypes.Structure):
    """Mirror of mps_fault in support/fibers.h."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("buffer", ctypes.c_int),
        ("array", ctypes.c_char_p),
        ("index", ctypes.c_int64),
        ("thread", ctypes.c_int),
        ("other", ctypes.c_int),
        ("line", ctypes.c_int),
        ("write", ctypes.c_int),
        ("group", ctypes.c_uint * 3),
    ]


# in the order of mps_fault_kind in support/fibers.h
_KINDS = (
    "",
    "divergent barrier",
    "threadgroup memory",
    "lane",
    "out of bounds",
    "misaligned",
    "uninitialised",
    "race",
    "race between groups",
)


def shader_fault(kernel: Kernel, fault: Fault) -> ShaderFault:
    """The exception for what a launch reported."""
    kind = _KINDS[fault.kind]
    buffer = fault.buffer if fault.buffer >= 0 else None
    array = fault.array.decode() if fault.array else None
    if buffer is not None:
        array = kernel.parameters[buffer].name
    touched = f"{'write to' if fault.write else 'read of'} {array}[{fault.index}]"
    if buffer is not None:
        touched += f" (buffer {buffer})"
    other = f"thread {fault.other} of the group"
    text = {
        "divergent barrier": f"not every thread of the group or simdgroup reaches the barrier in line {fault.line}",
        "threadgroup memory": f"{fault.index} bytes of threadgroup memory, Metal has 32768",
        "lane": f"line {fault.line} reads simdgroup lane {fault.index}, which does not exist",
        "out of bounds": f"{touched} is out of bounds",
        "misaligned": f"{touched} is not aligned to its type",
        "uninitialised": f"{touched}, which no thread of the group has written",
        "race": f"{touched} races with {other}: no barrier between them",
        "race between groups": f"{touched} races with another group of the launch",
    }[kind]
    group = (int(fault.group[0]), int(fault.group[1]), int(fault.group[2]))
    message = f"kernel {kernel.name}: {text} (group {group}, thread {fault.thread})"
    has_index = kind in ("out of bounds", "misaligned", "uninitialised", "race", "race between groups")
    return ShaderFault(
        message,
        kernel=kernel.name,
        kind=kind,
        array=array,
        buffer=buffer,
        index=int(fault.index) if has_index else None,
        group=group,
        thread=int(fault.thread),
    )
