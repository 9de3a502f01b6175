"""scripts/sanitize.py without CUDA: what it launches, by the host runtime, and what it makes of a tool's reports."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import require_route
from fences import forget_launches
from parity_cases import KINDS

import mps_spectro
from mps_spectro import _kernels, diagnostics
from mps_spectro._plan import make_plan

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "sanitize.py"
# in the place of compute-sanitizer: the second kind it is asked for has a report, "mixed" takes the process with it
TOOL = """\
import sys
kinds = sys.argv[sys.argv.index("--kinds") + 1].split(";")
print("========= COMPUTE-SANITIZER")
for number, kind in enumerate(kinds):
    print("kind begins: " + kind, flush=True)
    if number == 1:
        print("========= Invalid __global__ read of size 4 bytes")
    if kind == "mixed":
        sys.exit(9)
    print("kind ends: " + kind, flush=True)
"""


@pytest.fixture(scope="module")
def sanitize() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sanitize", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)


def tool(folder: Path, text: str) -> str:
    script = folder / "tool.py"
    script.write_text(text)
    program = folder / "tool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_kinds_are_every_kind_of_plan(sanitize: ModuleType) -> None:
    def described(n_fft: int) -> tuple[object, ...]:
        plan = make_plan(n_fft)
        defines = dict(plan.defines)
        flags = ("SPLIT", "PING_PONG", "SIMD_BARRIER", "SWIZZLE", "SIMD_SLOTS")
        return (plan.kind, plan.pair, plan.mirrored, plan.prime > 0, *(defines[flag] for flag in flags))

    covered = {described(n_fft) for n_fft, *_ in sanitize.KINDS.values()}
    assert {described(n_fft) for name, n_fft in KINDS.items() if name != "torch"} <= covered


@pytest.mark.parametrize("kind", ["one sample", "one pass", "mirrored", "mirrored, two in a simdgroup", "mixed pair"])
def test_what_is_launched(kind: str, sanitize: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    require_route("host")
    prepared: list[str] = []
    prepare, use_backend = _kernels._prepare, mps_spectro.use_backend
    monkeypatch.setattr(
        _kernels, "_prepare", lambda backend, name, *rest: (prepared.append(name), prepare(backend, name, *rest))[1]
    )
    monkeypatch.setattr(_kernels, "_FEW_BLOCKS", _kernels._FEW_BLOCKS)
    monkeypatch.setattr(mps_spectro, "use_backend", lambda name: use_backend("host"))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    forget_launches()
    diagnostics(reset=True)
    sanitize.child([kind])
    forget_launches()
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == {"analysis": 5, "synthesis": 9, "bands": 1, "gains": 1}
    assert report["torch_route"] == {}
    kernels = {"analysis", "bands", "gains", "synthesis"}
    kernels |= {"abreast"} if "mirrored" in kind else set()
    # so few threads of a frame that they never work alone
    assert set(prepared) == kernels - ({"synthesis"} if kind == "mirrored, two in a simdgroup" else set())


def test_verdicts(tmp_path: Path) -> None:
    done = run("--sanitizer", tool(tmp_path, TOOL), "--tools", "memcheck", "--kinds", "radix;chirp;mixed;one pass")
    assert done.returncode == 1, done.stderr
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    assert rows["radix"].strip() == "clean"
    assert rows["chirp"].strip() == "DIRTY (1 reports)"
    assert rows["mixed"].strip() == "DID NOT FINISH"
    assert rows["one pass"].strip() == "clean"  # by another process


def test_status(tmp_path: Path) -> None:
    clean = tool(tmp_path, TOOL)
    assert run("--sanitizer", clean, "--kinds", "radix").returncode == 0
    assert run("--sanitizer", tool(tmp_path, "raise SystemExit('no device')"), "--kinds", "radix").returncode == 2
    missing = run("--sanitizer", str(tmp_path / "absent"), "--kinds", "radix")
    if not Path("/usr/local/cuda/bin/compute-sanitizer").exists():
        assert missing.returncode == 2 and "comes with the CUDA toolkit" in missing.stdout
    unknown = run("--kinds", "radix;triangle")
    assert unknown.returncode == 2 and "got 'triangle'" in unknown.stderr
