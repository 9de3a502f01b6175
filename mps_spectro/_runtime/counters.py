"""What a counted launch on the host runtime reports: the memory traffic of a kernel, the same on any machine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from .translate import Kernel

# the layout that support/checked.h fills: groups and barriers, six for threadgroup memory and for each argument
_HEAD, _EACH = 3, 6


@dataclass(frozen=True)
class Traffic:
    """Bytes of one tensor that a launch read and wrote, in words of 4 bytes.

    Attributes:
        name: the kernel's parameter.
        read, written: each word once for every threadgroup that touches it.
        distinct_read, distinct_written: each word once.
        asked_read, asked_written: as often as threads asked for it.
    """

    name: str
    read: int
    written: int
    distinct_read: int
    distinct_written: int
    asked_read: int
    asked_written: int


@dataclass(frozen=True)
class Counters:
    """One launch.

    Attributes:
        kernel: its name.
        groups: threadgroups that ran.
        threadgroup_barriers, simdgroup_barriers: in all groups; one that a group (simdgroup) meets at counts once.
        local_read, local_written: bytes of threadgroup memory that threads asked for.
        tensors: traffic of the tensor arguments, in order.
    """

    kernel: str
    groups: int
    threadgroup_barriers: int
    simdgroup_barriers: int
    local_read: int
    local_written: int
    tensors: tuple[Traffic, ...]

    def tensor(self, name: str) -> Traffic:
        """The traffic of the parameter of this name."""
        return next(traffic for traffic in self.tensors if traffic.name == name)


def blank(arguments: int) -> Any:
    """Memory for the counters of a launch with so many arguments."""
    return (ctypes.c_int64 * (_HEAD + _EACH * (1 + arguments)))()


def counters(kernel: Kernel, values: Any) -> Counters:
    """Reads what a launch has counted."""

    def block(index: int) -> list[int]:
        start = _HEAD + _EACH * index
        return list(values[start : start + _EACH])

    tensors = tuple(
        Traffic(parameter.name, *block(1 + index))
        for index, parameter in enumerate(kernel.parameters)
        if parameter.kind == "tensor"
    )
    groups, barriers, simd_barriers = values[:_HEAD]
    *_, local_read, local_written = block(0)
    return Counters(kernel.name, groups, barriers, simd_barriers, local_read, local_written, tensors)
