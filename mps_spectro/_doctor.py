"""`mps-spectro doctor`: what works on this machine, and whether the shaders agree with torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from typing import Any, Callable

import torch

from . import __version__
from ._backend import BACKENDS, disabled, use_backend
from ._diagnostics import diagnostics

_DEVICE = {"metal": "mps", "cuda": "cuda", "host": "cpu", "torch": "cpu"}
_TOLERANCE = 2e-6  # of the largest value; float32 transforms of these sizes stay near 3e-7
# a power of two, a mixed-radix size and one that needs Bluestein
_SIZES = ((1024, 256), (400, 160), (1021, 255))
_VARIABLES = ("PYTORCH_MPS_FAST_MATH", "PYTORCH_ENABLE_MPS_FALLBACK", "PYTORCH_MPS_PREFER_METAL")


def main(as_json: bool = False) -> int:
    """Prints the report; returns 1 if a backend that works here disagrees with torch or fails, else 0."""
    found = report()
    print(json.dumps(found, indent=2, default=str) if as_json else _text(found))
    return 1 if found["failed"] else 0


def report() -> dict[str, Any]:
    """Everything the doctor knows. Never raises: a part that cannot be read holds the reason."""
    found: dict[str, Any] = {
        "mps_spectro": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "torch": torch.__version__,
        "platform": _guarded(_platform),
        "mps": _guarded(_mps),
        "cuda": _guarded(_cuda),
        "cpp_compiler": _guarded(_compiler),
        "shaders": _guarded(_shaders),
        "environment": _guarded(_environment),
        "patch": _guarded(_patch),
        "backends": {name: _backend(name) for name in BACKENDS if name != "auto"},
        "torch_notes": _guarded(_torch_notes),
        "diagnostics": _guarded(diagnostics),
    }
    found["failed"] = [name for name, state in found["backends"].items() if state.get("agrees") is False]
    return found


def _guarded(part: Callable[[], Any]) -> Any:
    try:
        return part()
    except Exception as why:  # noqa: BLE001 - a report about a broken machine must not break
        return f"cannot be read: {type(why).__name__}: {why}"


def _platform() -> dict[str, Any]:
    state = {"system": platform.platform(), "machine": platform.machine(), "cpu_threads": os.cpu_count()}
    if sys.platform == "darwin":
        state["macos"] = platform.mac_ver()[0]
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=10, check=False
        )
        state["chip"] = asked.stdout.strip() or asked.stderr.strip()
    return state


def _mps() -> dict[str, Any]:
    state: dict[str, Any] = {
        "built": torch.backends.mps.is_built(),
        "available": torch.backends.mps.is_available(),
    }
    if state["available"] and hasattr(torch.backends.mps, "get_core_count"):
        state["gpu"] = _guarded(torch.backends.mps.get_name)
        state["gpu_cores"] = _guarded(torch.backends.mps.get_core_count)
    return state


def _cuda() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"available": False}
    return {
        "available": True,
        "runtime": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _compiler() -> dict[str, str]:
    """The C++ compiler of the host backend."""
    from ._runtime._compiler import _find_compiler

    command, version = _find_compiler(os.environ.get("CXX"))
    return {"command": " ".join(command), "version": version.partition("\n")[0]}


def _shaders() -> dict[str, Any]:
    from ._runtime.source import shader_directory

    folder = shader_directory()
    digest = hashlib.sha256()
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".metal", ".h"))
    for name in names:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    return {"directory": str(folder), "files": len(names), "sha256": digest.hexdigest()}


def _environment() -> dict[str, str]:
    names = sorted({*_VARIABLES, *(name for name in os.environ if name.startswith("MPS_SPECTRO_"))})
    return {name: os.environ.get(name, "not set") for name in names}


def _patch() -> dict[str, Any]:
    """Which names of torch are ours now. Aliases taken by `from torch import stft` before patching stay torch's."""
    owners = {
        "torch.stft": torch.stft,
        "torch.istft": torch.istft,
        "torch.functional.stft": torch.functional.stft,
        "torch.functional.istft": torch.functional.istft,
    }
    package = __name__.partition(".")[0]
    return {
        "patched": [name for name, function in owners.items() if _module(function).partition(".")[0] == package],
        "disabled": disabled(),
    }


def _module(function: Any) -> str:
    # the code's own home: a wrapper may carry the module name of what it wraps
    return getattr(function, "__globals__", {}).get("__name__") or ""


def _backend(name: str) -> dict[str, Any]:
    """Whether a backend works here, what its first compilation cost, and how far it is from float64."""
    from ._runtime import RuntimeUnavailable

    device = _DEVICE[name]
    if device == "mps" and not torch.backends.mps.is_available():
        return {"available": False, "why": "torch finds no MPS device"}
    if device == "cuda" and not torch.cuda.is_available():
        return {"available": False, "why": "torch finds no CUDA device"}
    if disabled() and name != "torch":
        return {"available": False, "why": "switched off by MPS_SPECTRO_DISABLE"}
    try:
        before = diagnostics()
        errors = {}
        for n_fft, hop in _SIZES:
            errors[f"{n_fft}/{hop}"] = _self_test(name, device, n_fft, hop)
        after = diagnostics()
    except RuntimeUnavailable as why:
        return {"available": False, "why": str(why)}
    except Exception as why:  # noqa: BLE001 - whatever the driver or the compiler says belongs in the report
        return {"available": True, "agrees": False, "why": f"{type(why).__name__}: {why}"}
    worst = max(max(pair.values()) for pair in errors.values())
    compiled = after["compiles"]["count"] - before["compiles"]["count"]
    seconds = after["compiles"]["seconds"] - before["compiles"]["seconds"]
    calls = after["backend_calls"].get(name, 0) - before["backend_calls"].get(name, 0)
    if name != "torch" and not calls:
        return {"available": True, "agrees": False, "why": f"torch answered instead: {after['torch_route']}"}
    return {
        "available": True,
        "agrees": worst <= _TOLERANCE,
        "max_relative_error": errors,
        "kernel_calls": calls,
        # compiled, or loaded from a cache on disk where the runtime keeps one
        "libraries": compiled,
        "seconds_per_library": round(seconds / compiled, 3) if compiled else None,
    }


def _self_test(name: str, device: str, n_fft: int, hop: int) -> dict[str, float]:
    """Largest error of both transforms on noise, relative to the largest value of torch's float64 on the CPU."""
    from .istft import istft
    from .stft import stft

    noise = torch.randn(2, 8 * n_fft + 3, generator=torch.Generator().manual_seed(n_fft))
    window = torch.hann_window(n_fft)
    length = noise.shape[-1]
    spectrum = torch.stft(noise.double(), n_fft, hop, window=window.double(), return_complex=True)
    with use_backend(name):
        ours = stft(noise.to(device), n_fft, hop, window=window.to(device), return_complex=True)
        back = istft(spectrum.to(torch.complex64).to(device), n_fft, hop, window=window.to(device), length=length)
    return {"stft": _relative(ours.cpu(), spectrum), "istft": _relative(back.cpu(), noise.double())}


def _relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    error = ((got - wanted).abs().max() / wanted.abs().max()).item()
    return error if error == error else float("inf")


def _torch_notes() -> list[str]:
    """Known faults of torch's own functions that this machine shows; ours do not go through them."""
    if not torch.backends.mps.is_available():
        return []
    # pytorch#196949: the reflection pad of torch.stft(center=True)
    x = torch.zeros(1, 65537, device="mps", requires_grad=True)
    torch.nn.functional.pad(x, (1, 1), mode="reflect").sum().backward()
    assert x.grad is not None
    wanted = torch.ones(1, 65537)
    wanted[0, 1] = wanted[0, -2] = 2
    if torch.equal(x.grad.cpu(), wanted):
        return []
    return [
        "gradients of torch's reflection padding on MPS, and so of torch.stft(center=True), are wrong for more than "
        "65536 samples (pytorch#196949)"
    ]


def _text(found: dict[str, Any]) -> str:
    lines: list[str] = []
    for key, value in found.items():
        if key == "backends":
            lines.append("backends")
            lines += [f"  {name:12}{_verdict(state)}" for name, state in value.items()]
        elif key != "failed":
            lines += _block(key, value)
    failed = ", ".join(found["failed"])
    lines.append(f"FAILED      {failed}" if failed else "every backend that runs here agrees with torch")
    return "\n".join(lines)


def _verdict(state: dict[str, Any]) -> str:
    if not state["available"]:
        return f"not available: {state['why']}"
    if "max_relative_error" not in state:
        return f"FAILED: {state['why']}"
    worst = max(max(pair.values()) for pair in state["max_relative_error"].values())
    cost = (
        f", {state['libraries']} shaders ready in {state['seconds_per_library']} s each" if state["libraries"] else ""
    )
    return f"{'agrees' if state['agrees'] else 'DISAGREES'} with torch float64, largest error {worst:.1e}{cost}"


def _block(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [key, *(f"  {name:28}{_flat(entry)}" for name, entry in value.items())]
    if isinstance(value, list):
        return [key, *(f"  {entry}" for entry in value or ["none"])]
    return [f"{key:14}{value}"]


def _flat(entry: Any) -> str:
    if isinstance(entry, dict):
        if entry.keys() == {"size", "limit", "hits", "misses"}:
            return f"{entry['size']} of {entry['limit']}, {entry['hits']} hits, {entry['misses']} misses"
        return ", ".join(f"{name} {_flat(value)}" for name, value in entry.items()) or "none"
    if isinstance(entry, (list, tuple)):
        return ", ".join(map(_flat, entry)) or "none"
    return f"{entry:.3g}" if isinstance(entry, float) else str(entry)
