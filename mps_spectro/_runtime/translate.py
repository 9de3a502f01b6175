"""Turns the subset of the Metal Shading Language that shaders/README.md states into C++.

The work is mechanical: address-space words go away (or become checking pointers), kernel parameters with `[[...]]`
attributes become arguments, everything else is left to the compiler and to the target's prelude in support/. What lies
outside the subset is an error that names its line, because NVRTC and C++ compilers would accept much of it in silence.
Lines keep their numbers, so a compiler's log points at the shader's own text.

What a prelude defines for the text below it:
    all      types, vector operators, make_c, math, threadgroup_barrier, simdgroup_barrier, simd_*, as_type, UNROLL
             mps_long (64 bits), MPS_CONSTANT (program-scope constants), MPS_THREADGROUP_ARRAY(type, name, (size))
    cuda     MPS_KERNEL(max threads) in front of `name(parameters) {`; MPS_INTS and MPS_FLOATS, by-value arrays with a
             member `value`; a function mps_<attribute>() for each built-in: uint3 for positions, uint for indices
    host     MPS_ENTRY(name, (max threads), (arguments)) after a kernel; in the arguments
             MPS_BUFFER(type, index, space), MPS_SCALAR(type, index, space) and mps_at.<attribute>
    checked  as host, and mps_pointer<type, mps_in_<space>>
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from . import ShaderCompileError
from .subset import BUILTIN_TYPES, POINTER, SPACES, TYPE, Refusal, check, closing, without_comments, without_metal_only

# checked.h and host.h stand on the same scalar types and the same scheduler
_PRELUDES = {
    "host": ("scalar.h", "fibers.h", "host.h"),
    "checked": ("scalar.h", "fibers.h", "checked.h"),
    "cuda": ("cuda.h",),
    "opencl": ("opencl.h",),
}
TARGETS = tuple(_PRELUDES)

_POSITIONS = (
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "thread_position_in_grid",
    "threads_per_threadgroup",
    "threadgroups_per_grid",
)
_INDICES = ("thread_index_in_threadgroup", "thread_index_in_simdgroup", "simdgroup_index_in_threadgroup")
_THREADGROUP_ARRAY = re.compile(rf"\bthreadgroup\s+({TYPE})\s+(\w+)\s*\[([^\[\]]*)\]\s*;")
_CONSTANT = re.compile(rf"\bconstant\s+(?:const\s+)?({TYPE})\s+(\w+)\s*((?:\[[^\[\]]*\]\s*)*)=")
# arrays in registers, and structures, whose members stay as they are
_LOCAL_ARRAY = re.compile(
    rf"\bstruct\s+\w+\s*\{{[^{{}}]*\}}|\b(?P<type>{'|'.join(BUILTIN_TYPES)})\s+(?P<name>\w+)\s*\[(?P<size>[^\[\]]+)\]\s*;"
)
_SPACED = re.compile(f"{POINTER.pattern}|(?P<array>{_THREADGROUP_ARRAY.pattern})|(?P<constant>{_CONSTANT.pattern})")
_KERNEL = re.compile(
    r"(?:\[\[\s*max_total_threads_per_threadgroup\s*\((?P<limit>[^\[\]]*)\)\s*\]\]\s*)?\bkernel\s+void\s+(?P<name>\w+)\s*\("
)
_BUFFER = re.compile(
    rf"(?:(const)\s+)?(device|constant)\s+(?:(const)\s+)?({TYPE})\s*(?:\b(const)\s*)?([*&])\s*(\w+)\s*"
    r"\[\[\s*buffer\s*\(\s*(\d+)\s*\)\s*\]\]"
)
_BUILTIN = re.compile(r"(uint|uint3)\s+(\w+)\s*\[\[\s*(\w+)\s*\]\]")
_SCALAR_KINDS = {("long", "*"): "ints", ("float", "*"): "floats", ("long", "&"): "int", ("float", "&"): "float"}


@dataclass(frozen=True)
class Parameter:
    """A buffer of a kernel; `kind` is "tensor", "ints", "floats", "int" or "float"; `writable`: tensor, not const."""

    name: str
    kind: str
    type: str
    writable: bool


@dataclass(frozen=True)
class Builtin:
    """One built-in value that a kernel takes: `type` is "uint" or "uint3"."""

    name: str
    attribute: str
    type: str


@dataclass(frozen=True)
class Kernel:
    """A kernel: parameters in buffer order, and the text of its max_total_threads_per_threadgroup if given."""

    name: str
    parameters: tuple[Parameter, ...]
    builtins: tuple[Builtin, ...]
    max_total_threads: str | None


@dataclass(frozen=True)
class Translation:
    """C++ for one target: the prelude and the shader in `text`, and the kernels in it."""

    text: str
    kernels: tuple[Kernel, ...]


@functools.lru_cache(maxsize=len(_PRELUDES))
def prelude(target: str) -> str:
    """What the translated text of a target stands on: types, math, barriers."""
    folder = Path(__file__).resolve().parent / "support"
    return "".join((folder / name).read_text(encoding="utf-8") for name in _PRELUDES[target])


def translate(source: str, target: str) -> Translation:
    """Translates complete shader text (defines in front, includes inlined).

    Args:
        source: the shader.
        target: "host", "checked", "cuda" or "opencl".

    Raises:
        ValueError: unknown target.
        ShaderCompileError: the text leaves the subset; the message names the line.
    """
    if target not in _PRELUDES:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    # hundreds of specialisations of one shader differ in the defines in front only
    head = re.match(r"(?:#define [^\n\\]*\n)*", source)
    defines = head.group() if head else ""
    body, kernels = _translated(source[len(defines) :], target, defines.count("\n") + 1)
    return Translation(f'{prelude(target)}\n#line 1 "shader.metal"\n{defines}{body}\n', kernels)


@functools.lru_cache(maxsize=32)
def _translated(source: str, target: str, first_line: int) -> tuple[str, tuple[Kernel, ...]]:
    try:
        text = without_metal_only(without_comments(source))
        check(text)
        return _Writer(text, target).write()
    except Refusal as refusal:
        raise ShaderCompileError(f"shader.metal:{first_line + refusal.lines_before}: {refusal}") from None


class _Writer:
    """Writes one target's text."""

    def __init__(self, text: str, target: str) -> None:
        self.text = text
        self.target = target

    def write(self) -> tuple[str, tuple[Kernel, ...]]:
        pieces: list[str] = []
        kernels: list[Kernel] = []
        done = 0
        for match in _KERNEL.finditer(self.text):
            end_of_parameters = closing(self.text, match.end() - 1)
            opening = self.text.find("{", end_of_parameters)
            if opening < 0 or self.text[end_of_parameters + 1 : opening].strip():
                raise Refusal(self.text, end_of_parameters, f"kernel {match['name']}: expected its body")
            end = closing(self.text, opening) + 1
            kernel = self._kernel(match, end_of_parameters)
            if any(kernel.name == other.name for other in kernels):
                raise Refusal(self.text, match.start(), f"kernel {kernel.name} is defined twice")
            pieces.append(self._rewrite(done, match.start(), in_kernel=False))
            body = self._rewrite(opening + 1, end - 1, in_kernel=True)
            # the header may span lines: keep their number so that logs stay true
            pieces.append(self._emit(kernel, body, "\n" * self.text.count("\n", match.start(), opening)))
            kernels.append(kernel)
            done = end
        pieces.append(self._rewrite(done, len(self.text), in_kernel=False))
        return "".join(pieces), tuple(kernels)

    def _kernel(self, match: re.Match[str], end: int) -> Kernel:
        buffers: dict[int, Parameter] = {}
        builtins: list[Builtin] = []
        position = match.end()
        declared = self.text[match.end() : end]
        for text in declared.split(",") if declared.strip() else ():
            parameter = text.strip()
            where = position + len(text) - len(text.lstrip())
            position += len(text) + 1
            if found := _BUFFER.fullmatch(parameter):
                const = any(found.group(number) for number in (1, 3, 5))
                space, type_, mark, name, index = found.group(2, 4, 6, 7, 8)
                kind = "tensor" if (space, mark) == ("device", "*") else _SCALAR_KINDS.get((type_, mark))
                if kind is None or (space == "device" and mark == "&"):
                    raise Refusal(self.text, where, f"parameter {parameter!r}: constant means long or float, * or &")
                if int(index) in buffers:
                    raise Refusal(self.text, where, f"buffer({index}) is bound twice")
                buffers[int(index)] = Parameter(name, kind, type_, kind == "tensor" and not const)
            elif (found := _BUILTIN.fullmatch(parameter)) and found.group(3) in _POSITIONS + _INDICES:
                type_, name, attribute = found.groups()
                if type_ == "uint3" and attribute in _INDICES:
                    raise Refusal(self.text, where, f"{attribute} is a uint")
                builtins.append(Builtin(name, attribute, type_))
            else:
                raise Refusal(self.text, where, f"parameter {parameter!r} is outside the subset")
        if sorted(buffers) != list(range(len(buffers))):
            raise Refusal(self.text, match.start(), f"kernel {match['name']}: buffers must be 0, 1, ... without gaps")
        if len(buffers) > 31:
            raise Refusal(self.text, match.start(), f"kernel {match['name']}: Metal binds at most 31 buffers")
        limit = match["limit"].strip() if match["limit"] else None
        return Kernel(match["name"], tuple(buffers[index] for index in sorted(buffers)), tuple(builtins), limit)

    def _rewrite(self, start: int, end: int, in_kernel: bool) -> str:
        """Address-space words of one stretch of text."""
        text = self.text

        def refuse_left_over(piece: str, offset: int) -> None:
            if found := re.search(rf"\b(?:{SPACES})\b|\[\[|\bkernel\b", piece):
                what = "threadgroup arrays have one dimension and stand at kernel scope; else it qualifies a pointer"
                raise Refusal(text, offset + found.start(), f"{found.group()!r}: {what}")

        pieces: list[str] = []
        done = start
        for match in _SPACED.finditer(text, start, end):
            between = text[done : match.start()]
            refuse_left_over(between, done)
            pieces.append(between)
            depth = text.count("{", start, match.start()) - text.count("}", start, match.start())
            lines = "\n" * match.group().count("\n")
            if match["array"]:
                if not in_kernel or depth:
                    raise Refusal(text, match.start(), "threadgroup arrays belong at the outermost scope of a kernel")
                array = _THREADGROUP_ARRAY.fullmatch(match["array"])
                assert array is not None
                pieces.append(lines + self._array(*array.groups()))
            elif match["constant"]:
                if in_kernel or depth:
                    raise Refusal(text, match.start(), "constants belong at program scope")
                constant = _CONSTANT.fullmatch(match["constant"])
                assert constant is not None
                pieces.append(lines + "MPS_CONSTANT {} {}{}=".format(*constant.groups()))
            else:
                const = any(match.group(number) for number in (1, 3, 5))
                pieces.append(lines + self._pointer(match.group(2), const, match.group(4), match.group(6)))
            done = match.end()
        refuse_left_over(text[done:end], done)
        pieces.append(text[done:end])
        written = "".join(pieces)
        return self._longs(_LOCAL_ARRAY.sub(_checked_local, written) if self.target == "checked" else written)

    def _longs(self, text: str) -> str:
        # long is 64 bits in Metal; in C++ that depends on the platform, so the prelude says which type it is
        return text if self.target == "opencl" else re.sub(r"\blong\b", "mps_long", text)

    def _array(self, type_: str, name: str, size: str) -> str:
        return f"MPS_THREADGROUP_ARRAY({type_}, {name}, ({size}));"

    def _pointer(self, space: str, const: bool, type_: str, mark: str) -> str:
        const = const or space == "constant"
        if self.target == "opencl":
            words = {"device": "__global", "constant": "__constant", "threadgroup": "__local", "thread": "__private"}
            return f"{words[space]} {'const ' if const and space != 'constant' else ''}{type_}{mark}"
        element = f"const {type_}" if const else type_
        if self.target == "checked" and mark == "*":
            return f"mps_pointer<{element}, mps_in_{space}>"
        return element + mark

    def _emit(self, kernel: Kernel, body: str, lines: str) -> str:
        return self._longs(
            {"host": self._emit_host, "checked": self._emit_host, "cuda": self._emit_cuda, "opencl": self._emit_opencl}[
                self.target
            ](kernel, body, lines)
        )

    def _declared(self, parameter: Parameter) -> str:
        """The type with which a kernel's function takes a parameter."""
        if parameter.kind in ("int", "float"):
            return f"const {parameter.type}"
        space = "device" if parameter.kind == "tensor" else "constant"
        return self._pointer(space, not parameter.writable, parameter.type, "*")

    def _emit_host(self, kernel: Kernel, body: str, lines: str) -> str:
        declared = [f"{self._declared(p)} {p.name}" for p in kernel.parameters]
        declared += [f"{b.type} {b.name}" for b in kernel.builtins]
        passed = []
        for index, p in enumerate(kernel.parameters):
            macro = "MPS_SCALAR" if p.kind in ("int", "float") else "MPS_BUFFER"
            passed.append(f"{macro}({'' if p.writable else 'const '}{p.type}, {index}, {_space(p)})")
        passed += [_builtin(b, "mps_at.") for b in kernel.builtins]
        entry = f"MPS_ENTRY({kernel.name}, ({kernel.max_total_threads or 1024}), ({', '.join(passed)}))"
        return f"static void {kernel.name}({', '.join(declared)}){lines}{{{body}}} {entry}"

    def _emit_cuda(self, kernel: Kernel, body: str, lines: str) -> str:
        declared, head = [], []
        for p in kernel.parameters:
            if p.kind in ("ints", "floats"):
                # passed by value: no allocation and no copy per launch
                declared.append(f"MPS_{p.kind.upper()} mps_{p.name}")
                head.append(f"const {p.type}* {p.name} = mps_{p.name}.value;")
            else:
                # what is only read may be loaded through the read-only cache, and ahead of stores
                restrict = "__restrict__ " if p.kind == "tensor" and not p.writable else ""
                declared.append(f"{self._declared(p)} {restrict}{p.name}")
        head += [f"const {b.type} {b.name} = {_builtin(b, 'mps_', '()')};" for b in kernel.builtins]
        signature = f"MPS_KERNEL({kernel.max_total_threads or 1024}) {kernel.name}({', '.join(declared)})"
        return f"{signature}{lines}{{ {' '.join(head)} {body}}}"

    def _emit_opencl(self, kernel: Kernel, body: str, lines: str) -> str:
        # only compiled to check address spaces, never run: built-ins may stay parameters
        declared = [f"{self._declared(p)} {p.name}" for p in kernel.parameters]
        declared += [f"{b.type} {b.name}" for b in kernel.builtins]
        return f"__kernel void {kernel.name}({', '.join(declared)}){lines}{{{body}}}"


def _checked_local(match: re.Match[str]) -> str:
    if match["name"] is None:
        return match.group()
    return f'mps_local<{match["type"]}, ({match["size"]})> {match["name"]}{{"{match["name"]}"}};'


def _space(parameter: Parameter) -> str:
    return "device" if parameter.kind == "tensor" else "constant"


def _builtin(builtin: Builtin, prefix: str, call: str = "") -> str:
    scalar = builtin.type == "uint" and builtin.attribute in _POSITIONS
    return f"{prefix}{builtin.attribute}{call}{'.x' if scalar else ''}"
