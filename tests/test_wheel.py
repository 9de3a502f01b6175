"""The wheel that users install: built from the sdist, in a clean environment, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import require_route

ROOT = Path(__file__).resolve().parent.parent
SHADERS = {path.name for path in (ROOT / "shaders").iterdir() if path.suffix in (".metal", ".h")}


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    # from folder: the checkout's own build/ must not hide the build package
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a clean environment that holds the wheel and sees only this environment's torch besides."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "torch_from_outside.pth").write_text(str(Path(torch.__file__).parent.parent) + "\n")
    return python


def test_wheel_holds_the_package_and_the_shaders(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.endswith("-py3-none-any.whl")
    assert SHADERS and {f"mps_spectro/shaders/{name}" for name in SHADERS} <= names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mps_spectro").rglob("*.py")}
    support = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mps_spectro").rglob("*.h")}
    assert modules | support | {"mps_spectro/py.typed"} <= names
    strangers = {name for name in names if not name.startswith(("mps_spectro/", "mps_spectro-"))}
    assert not strangers


def test_wheel_asks_for_torch_alone(wheel: Path) -> None:
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    metadata = zipfile.ZipFile(wheel).read(name).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required == ["Requires-Dist: torch>=2.8"]


TRANSFORM = """
import sys
import torch
import mps_spectro
from mps_spectro._runtime.source import shader_directory
assert mps_spectro.__file__.startswith(sys.prefix), mps_spectro.__file__
assert str(shader_directory()).startswith(sys.prefix), shader_directory()
x = torch.randn(2, 6000)
window = torch.hann_window(512)
wanted = torch.stft(x, 512, 128, window=window, return_complex=True)
with mps_spectro.use_backend(sys.argv[1]):
    spectrum = mps_spectro.stft(x, 512, 128, window=window)
    back = mps_spectro.istft(spectrum, 512, 128, window=window, length=6000)
assert (spectrum - wanted).abs().max() <= 2e-6 * wanted.abs().max()
assert (back - x).abs().max() <= 2e-6 * x.abs().max()
print(mps_spectro.diagnostics()["kernel_calls"])
"""


def test_installed_package_transforms_with_torch(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "-I", "-c", TRANSFORM, "torch", cwd=tmp_path) == "{}\n"


def test_installed_package_transforms_with_its_shaders(installed: Path, tmp_path: Path) -> None:
    require_route("host")
    printed = run(installed, "-I", "-c", TRANSFORM, "host", cwd=tmp_path)
    assert "analysis" in printed and "synthesis" in printed


def test_installed_command(installed: Path, tmp_path: Path) -> None:
    assert run(installed.parent / "mps-spectro", "--version", cwd=tmp_path) == "mps-spectro 0.1.0\n"
