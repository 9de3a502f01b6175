"""Finds the shaders and assembles the one source string that a runtime compiles."""

from __future__ import annotations

import functools
import re
from pathlib import Path

_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"\s*$', re.MULTILINE)


@functools.lru_cache(maxsize=1)
def shader_directory() -> Path:
    """The folder with the .metal files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "shaders", package.parent / "shaders"):
        # site-packages/shaders could belong to another project: ask for our own file
        if (candidate / "stft.metal").is_file():
            return candidate
    raise FileNotFoundError(f"the shaders of mps_spectro are missing: neither {package}/shaders nor its sibling exists")


@functools.lru_cache(maxsize=64)
def _inlined(name: str) -> str:
    seen: set[str] = set()

    def inline(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        text = (shader_directory() / file).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda match: inline(match.group(1)), text)

    return inline(name)


def assemble(name: str, defines: tuple[tuple[str, int], ...] = ()) -> str:
    """The text of shader `name` with own includes inlined once each and `#define`s in front."""
    head = "".join(f"#define {key} {value}\n" for key, value in defines)
    return head + _inlined(name)
