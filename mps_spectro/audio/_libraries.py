"""The optional libraries and programs behind the audio files."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from typing import Any

EXTRA = "pip install 'mps-spectro[audio]'"


def library(name: str) -> Any:
    """The module soundfile, soxr or numpy, imported at its first use.

    Raises:
        ImportError: not installed; says how to.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as why:  # OSError: soundfile found no libsndfile to load
        raise ImportError(f"mps_spectro.audio needs {name} here: {EXTRA} ({why})", name=name) from why


def program(name: str) -> str | None:
    """The path of ffmpeg or ffprobe, None where there is none."""
    return shutil.which(name)


def backends() -> dict[str, str | None]:
    """Versions of the libraries and programs that `mps_spectro.audio` found here.

    Returns:
        "soundfile", "libsndfile", "soxr", "ffmpeg" and "ffprobe", each with its version, or None where it is missing.
    """
    found: dict[str, str | None] = dict.fromkeys(("soundfile", "libsndfile", "soxr", "ffmpeg", "ffprobe"))
    for name in ("soundfile", "soxr"):
        try:
            found[name] = library(name).__version__
        except ImportError:
            continue
    if found["soundfile"] is not None:
        found["libsndfile"] = library("soundfile").__libsndfile_version__
    for name in ("ffmpeg", "ffprobe"):
        if (path := program(name)) is not None:
            said = subprocess.run([path, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
            words = said.split(maxsplit=3)
            found[name] = words[2] if words[1:2] == ["version"] else "unknown"
    return found
