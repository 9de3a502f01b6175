"""Finds NVRTC and compiles CUDA C++ with it, by ctypes: nothing but what torch already brings."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from . import RuntimeUnavailable, ShaderCompileError

_WINDOWS = sys.platform == "win32"
_PATTERN = "nvrtc64_*.dll" if _WINDOWS else "libnvrtc*.so*"
# contraction to fma stays on as in torch's own kernels, but no fast-math: results must not depend on a flag
_OPTIONS = ("--std=c++17", "-default-device", "--fmad=true")


@dataclass(frozen=True)
class Program:
    """What NVRTC made of a text: the `image` for cuModuleLoadData, the PTX behind it and the compiler's remarks."""

    image: bytes
    ptx: str
    log: str


def _cuda_major() -> int | None:
    version = torch.version.cuda
    return int(version.split(".")[0]) if version else None


def _folders(major: int | None) -> list[Path]:
    """Where torch and NVIDIA's wheels keep NVRTC, then a CUDA toolkit."""
    layouts = ["nvidia/cuda_nvrtc/lib", "nvidia/cuda_nvrtc/bin", "torch/lib"]
    for version in dict.fromkeys([major, 13]):
        if version is not None and version >= 13:
            layouts[:0] = [f"nvidia/cu{version}/{leaf}" for leaf in ("lib", "bin/x86_64", "bin")]
    roots = dict.fromkeys([str(Path(torch.__file__).resolve().parent.parent), *sys.path])
    folders = [Path(root, layout) for layout in layouts for root in roots if root]
    toolkits = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkits += [] if _WINDOWS else ["/usr/local/cuda"]
    folders += [Path(toolkit, leaf) for toolkit in toolkits for leaf in ("lib64", "lib", "bin")]
    return folders


def _rank(path: Path, major: int | None) -> tuple[bool, str]:
    """Sorts the version that torch was built with to the front: another one may be newer than the driver."""
    mark = f"nvrtc64_{major}" if _WINDOWS else f".so.{major}"
    return (mark not in path.name, path.name)


def candidates() -> list[str]:
    """Files and names under which NVRTC is looked for, in this order."""
    major = _cuda_major()
    found: list[str] = []
    for folder in _folders(major):
        files = [file for file in folder.glob(_PATTERN) if "builtins" not in file.name and ".alt" not in file.name]
        found += [str(file) for file in sorted(files, key=lambda file: _rank(file, major))]
    for version in dict.fromkeys([major, 13, 12]):
        if version is not None:
            found.append(f"nvrtc64_{version}0_0.dll" if _WINDOWS else f"libnvrtc.so.{version}")
    if not _WINDOWS:
        found.append("libnvrtc.so")
    return list(dict.fromkeys(found))


def _open(name: str) -> ctypes.CDLL:
    folder = Path(name).parent
    if folder.is_absolute():
        # NVRTC opens its builtins by bare name at the first compilation, which only finds them when already loaded
        for builtins in folder.glob("nvrtc-builtins*.dll" if _WINDOWS else "libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(name)
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


@functools.lru_cache(maxsize=1)
def _nvrtc() -> ctypes.CDLL:
    refusals = []
    for name in candidates():
        try:
            return _open(name)
        except (OSError, AttributeError) as error:
            refusals.append(f"{name}: {error}")
    raise RuntimeUnavailable(
        "NVRTC was not found; it comes with CUDA builds of torch or `pip install nvidia-cuda-nvrtc` ("
        + "; ".join(refusals)
        + ")"
    )


def _check(status: int, what: str) -> None:
    if status:
        text = _nvrtc().nvrtcGetErrorString(status)
        raise RuntimeUnavailable(f"NVRTC: {what}: {text.decode() if text else status}")


def _output(program: ctypes.c_void_p, what: str) -> bytes:
    """One of NVRTC's results: "PTX", "CUBIN" or "ProgramLog"."""
    nvrtc = _nvrtc()
    size = ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer), what)
    return buffer.raw


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace").strip()


@functools.lru_cache(maxsize=1)
def _architectures() -> tuple[int, ...]:
    """Compute capabilities this NVRTC can compile for, as 75, 90, ..."""
    nvrtc = _nvrtc()
    count = ctypes.c_int()
    _check(nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "supported architectures")
    values = (ctypes.c_int * count.value)()
    _check(nvrtc.nvrtcGetSupportedArchs(values), "supported architectures")
    return tuple(sorted(values))


def architecture(capability: int, known: tuple[int, ...]) -> str:
    """The target for a device: machine code, or PTX for the driver to finish when NVRTC is older than the device."""
    if capability in known:
        return f"sm_{capability}"
    older = [value for value in known if value < capability]
    if not older:
        raise RuntimeUnavailable(f"this NVRTC has no target for compute capability {capability / 10}")
    return f"compute_{max(older)}"


def compile_text(text: str, capability: int) -> Program:
    """Compiles CUDA C++ for a compute capability (90 for 9.0).

    Raises:
        RuntimeUnavailable: there is no usable NVRTC.
        ShaderCompileError: the text does not compile; the message is NVRTC's log.
    """
    nvrtc = _nvrtc()
    target = architecture(capability, _architectures())
    options = [option.encode() for option in (f"--gpu-architecture={target}", *_OPTIONS)]
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"prelude.h", 0, None, None),
        "program",
    )
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _text(_output(program, "ProgramLog"))
        if status == 6:  # NVRTC_ERROR_COMPILATION
            raise ShaderCompileError(log)
        _check(status, log or "compilation")
        ptx = _output(program, "PTX")
        image = _output(program, "CUBIN") if target.startswith("sm_") else ptx
        return Program(image, _text(ptx), log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
