"""`import torchaudio` where its compiled extension cannot load (a CPU-only torch beside the stock wheel).

Everything the tests compare with is written in Python; only the extension's loader has to be kept away.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Callable


def import_torchaudio() -> ModuleType:
    """torchaudio without its compiled extension; skips the calling test where the package is not installed."""
    import pytest

    if "torchaudio" not in sys.modules:
        extension = ModuleType("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        extension._check_cuda_version = lambda: None  # type: ignore[attr-defined]
        extension.fail_if_no_align = _unchanged  # type: ignore[attr-defined]
        sys.modules["torchaudio._extension"] = extension
    return pytest.importorskip("torchaudio")


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
