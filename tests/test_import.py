"""Importing the package has no effect but the import."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import mps_spectro

ROOT = Path(mps_spectro.__file__).parent.parent


def run(code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that finds the package under test."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize("name", mps_spectro.__all__)
def test_public_name(name: str) -> None:
    assert getattr(mps_spectro, name) is not None


@pytest.mark.parametrize("name", ["stft", "istft", "patch_torch", "use_backend", "diagnostics"])
def test_public_functions_are_documented_callables(name: str) -> None:
    function = getattr(mps_spectro, name)
    assert callable(function) and not isinstance(function, types.ModuleType)
    assert function.__doc__


def test_functions_keep_their_names_after_their_modules_are_imported() -> None:
    done = run(
        "import mps_spectro.stft, mps_spectro.istft, mps_spectro.patch\n"
        "from mps_spectro.stft import stft\n"
        "from mps_spectro import istft\n"
        "assert mps_spectro.stft is stft and mps_spectro.istft is istft\n"
        "assert callable(stft) and callable(istft), (stft, istft)\n"
    )
    assert done.returncode == 0, done.stderr


QUIET = """
import os, subprocess, sys, threading
import torch
import torch.library

def refuse(name):
    def call(*args, **kwargs):
        raise AssertionError(f"importing mps_spectro called {name}")
    return call

subprocess.Popen = refuse("subprocess.Popen")
os.system = refuse("os.system")
if hasattr(torch.mps, "compile_shader"):
    torch.mps.compile_shader = refuse("torch.mps.compile_shader")
torch.cuda.init = torch.cuda._lazy_init = refuse("torch.cuda.init")
before = dict(os.environ), torch.stft, torch.istft, torch.Tensor.stft, torch.Tensor.istft, threading.active_count()
random = torch.random.get_rng_state()
modules = set(sys.modules)

import mps_spectro

after = dict(os.environ), torch.stft, torch.istft, torch.Tensor.stft, torch.Tensor.istft, threading.active_count()
assert after == before, "importing changed the environment, torch or the threads"
assert torch.equal(random, torch.random.get_rng_state()), "importing drew random numbers"
assert not torch.cuda.is_initialized()
assert mps_spectro.diagnostics()["compiles"]["count"] == 0
heavy = {"numpy", "matplotlib", "soundfile", "librosa", "torchaudio"} & (set(sys.modules) - modules)
assert not heavy, heavy
"""


def test_import_is_quiet() -> None:
    done = run(QUIET)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


def test_works_without_numpy() -> None:
    done = run(
        "import sys, warnings\n"
        "sys.modules['numpy'] = None\n"
        "import torch\n"
        "import mps_spectro\n"
        "x = torch.randn(2, 4000)\n"
        "window = torch.hann_window(400)\n"
        "spectrum = mps_spectro.stft(x, 400, 100, window=window)\n"
        "assert torch.allclose(spectrum, torch.stft(x, 400, 100, window=window, return_complex=True), atol=1e-4)\n"
        "back = mps_spectro.istft(spectrum, 400, 100, window=window, length=4000)\n"
        "assert torch.allclose(back, x, atol=1e-5)\n"
    )
    assert done.returncode == 0, done.stderr


def test_version_is_that_of_the_metadata() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{mps_spectro.__version__}"\n' in text


def test_typed() -> None:
    assert (ROOT / "mps_spectro" / "py.typed").is_file()
