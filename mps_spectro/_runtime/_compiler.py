"""Finds the C++ compiler and turns text into a loaded shared object, through a cache on disk."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import RuntimeUnavailable, ShaderCompileError

# -fno-strict-aliasing: shaders read float buffers as float2. -ffp-contract=off: the same numbers from every compiler.
_FLAGS = (
    "-std=c++17 -O1 -shared -fPIC -w -pipe -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables "
    "-fno-strict-aliasing -fno-math-errno -ffp-contract=off -x c++ -"
).split()
_MAX_FILES = 4096
_MAX_BYTES = 256 << 20


@functools.lru_cache(maxsize=8)
def _find_compiler(cxx: str | None) -> tuple[tuple[str, ...], str]:
    """The compiler's command and what tells its version apart."""
    candidates = [shlex.split(cxx)] if cxx else [["c++"], ["g++"], ["clang++"]]
    if not cxx and importlib.util.find_spec("ziglang") is not None:
        candidates.append([sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=all"])
    for command in candidates:
        if command and shutil.which(command[0]):
            try:
                version = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired):
                continue
            if version.returncode == 0:
                return tuple(command), version.stdout
    wanted = f"$CXX ({cxx})" if cxx else "c++, g++, clang++ or the Python package ziglang"
    raise RuntimeUnavailable(f"the host runtime needs a C++ compiler: {wanted} was not found or does not start")


def _cache_directory() -> Path:
    chosen = os.environ.get("MPS_SPECTRO_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mps_spectro"


def shared_object(text: str) -> ctypes.CDLL:
    """The C++ `text`, compiled and loaded. Compiled objects are kept in $MPS_SPECTRO_CACHE_DIR, by default
    $XDG_CACHE_HOME/mps_spectro or ~/.cache/mps_spectro; a cache that cannot be written is done without.

    Raises:
        RuntimeUnavailable: no C++ compiler here.
        ShaderCompileError: the text does not compile.
    """
    if os.name != "posix":
        raise RuntimeUnavailable("the host runtime runs on Linux and macOS only")
    command, version = _find_compiler(os.environ.get("CXX"))
    identity = "\0".join([text, version, platform.machine(), sys.platform, *command, *_FLAGS])
    name = hashlib.sha256(identity.encode()).hexdigest()[:40] + ".so"
    try:
        kept = _cache_directory() / name
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        kept = None
    if kept is not None:
        with contextlib.suppress(OSError):  # absent, or removed by another process just now
            loaded = ctypes.CDLL(str(kept))
            os.utime(kept)
            return loaded
    with tempfile.TemporaryDirectory(prefix="mps_spectro-") as folder:
        built = Path(folder) / name
        _compile(command, text, built)
        if kept is not None and _keep(built, kept):
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(kept))
        return ctypes.CDLL(str(built))  # stays mapped when the file goes


def _compile(command: tuple[str, ...], text: str, target: Path) -> None:
    done = subprocess.run([*command, *_FLAGS, "-o", str(target), "-lm"], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise ShaderCompileError(done.stderr.strip() or f"{command[0]} ended with status {done.returncode}")


def _keep(built: Path, kept: Path) -> bool:
    """Puts a compiled object into the cache, whole or not at all, and the oldest out when there are too many."""
    unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        shutil.copy(built, unfinished)
        os.replace(unfinished, kept)
        _trim(kept.parent)
        return True
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        return False


def _trim(folder: Path) -> None:
    entries = []
    for path in folder.glob("*.so*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    entries.sort(reverse=True)
    total = 0
    for position, (_, size, path) in enumerate(entries):
        total += size
        if position >= _MAX_FILES or total > _MAX_BYTES:
            path.unlink(missing_ok=True)
