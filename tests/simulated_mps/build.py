"""Compiles device.cpp against the headers of the installed torch, once per source and torch version."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("device.cpp")


def compiler() -> str | None:
    """The C++ compiler: $CXX, else g++, c++ or clang++ of the PATH; None when there is none."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def _command(cxx: str, target: str) -> list[str]:
    root = Path(torch.__file__).parent
    return [
        cxx,
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-shared",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
        str(SOURCE),
        "-o",
        target,
        "-isystem",
        str(root / "include"),
        "-isystem",
        str(root / "include" / "torch" / "csrc" / "api" / "include"),
        f"-L{root / 'lib'}",
        "-lc10",
        "-ltorch_cpu",
    ]


def _cache() -> Path:
    chosen = os.environ.get("MPS_SPECTRO_CACHE_DIR")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mps_spectro"
    return base / "simulated_mps"


def library() -> Path:
    """Path of the shared object, compiled now (half a minute) if this source was not yet compiled for this torch.

    Raises:
        RuntimeError: no C++ compiler, or the compiler's log.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("the simulated MPS device needs a C++ compiler")
    # the command names the torch that the headers and libraries come from
    key = "\n".join([torch.__version__, sys.platform, *_command(cxx, ""), SOURCE.read_text(encoding="utf-8")])
    path = _cache() / f"device-{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        target = os.path.join(scratch, "device.so")
        done = subprocess.run(_command(cxx, target), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the simulated MPS device does not compile:\n{done.stderr}")
        os.replace(target, path)
    return path
