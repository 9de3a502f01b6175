"""Where a small call's time goes: Python, the dispatcher, the launch, the device.

Calls that repeat go from the function straight to a kept launch (_repeat.py); the op and its arguments are what the
first call of its kind goes through, and every call that autograd or a compiler watches.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator

import torch

from .. import _kernels
from .._envelope import reciprocal_envelope
from .._ops import call_analysis, call_synthesis
from ..istft import istft
from ..stft import stft
from .cases import Case
from .clocks import Clock, Spread

_SHAPES = ((1, 16_000, 512, 128), (1, 16_000, 1024, 256), (4, 160_000, 1024, 256), (8, 480_000, 1024, 256))
_CALLS, _REPEATS = 200, 11  # few enough calls that the device's queue does not fill up and stop the host


def profile(clock: Clock, backend: str) -> list[dict[str, Any]]:
    """Microseconds per call on the host for each layer, for stft and istft, and of the device."""
    rows = []
    shapes = _SHAPES if clock.kind != "cpu" else _SHAPES[:1]
    for shape in shapes:
        case = Case("stft", "stft", *shape)
        rows += [_profile(case, clock, backend, name) for name in ("stft", "istft")]
    return rows


def _profile(case: Case, clock: Clock, backend: str, name: str) -> dict[str, Any]:
    device, n_fft, hop = clock.device, case.n_fft, case.hop
    x = torch.randn(case.batch, case.length, device=device)
    window = torch.hann_window(n_fft, device=device)
    spectrum = torch.stft(x, n_fft, hop, window=window, return_complex=True)
    pairs = torch.view_as_real(spectrum)
    samples = (case.frames - 1) * hop + n_fft % 2
    layers: dict[str, Callable[[], Any]]
    shape: Any
    tensors: Any
    bind: Any
    sizes: tuple[Any, ...]
    if name == "stft":
        shape = (n_fft, hop, n_fft // 2, "reflect", case.frames, 1.0, False)
        tensors = (x, window, None)
        layers = {
            "torch": lambda: torch.stft(x, n_fft, hop, window=window, return_complex=True),
            "function": lambda: stft(x, n_fft, hop, window=window),
            "op": lambda: call_analysis(*tensors, *shape),
            "kernels": lambda: _kernels.analysis(backend, *tensors, *shape),
        }
        bind = _kernels.bind_analysis
        sizes = (tuple(x.shape), x.stride(), _kernels.aligned(x, window), None)
    else:
        shape = (n_fft, hop, n_fft // 2, "constant", samples, 1.0 / n_fft, True)
        env = reciprocal_envelope(window, n_fft, hop, case.frames, torch.float32)
        tensors = (pairs, window, env)
        layers = {
            "torch": lambda: torch.istft(spectrum, n_fft, hop, window=window),
            "function": lambda: istft(spectrum, n_fft, hop, window=window),
            "op": lambda: call_synthesis(*tensors, *shape),
            "kernels": lambda: _kernels.synthesis(backend, *tensors, *shape),
        }
        bind = _kernels.bind_synthesis
        sizes = ((case.batch, case.frames), spectrum.stride(), _kernels.aligned(window), env.shape[0])
    if backend == "torch":
        del layers["kernels"]
    else:
        launch, out = bind(backend, device, *sizes, *shape), layers["kernels"]()
        first, _, env_or_none = tensors
        bound = (first, window, window if env_or_none is None else env_or_none, launch.table, out)
        layers["launch"] = lambda: launch.run(*bound)
    for call in layers.values():
        call()
    calls = _CALLS if clock.kind != "cpu" else 3
    times: dict[str, list[float]] = {layer: [] for layer in layers}
    for _ in range(_REPEATS):
        for key, call in layers.items():
            times[key].append(clock.host(call, calls))
    prepared = {key: clock.prepare(layers[key], 2.0, graphs=True) for key in ("torch", "function")}
    row: dict[str, Any] = {"name": f"{name} {case.name.split(' ', 1)[1]}"}
    row["host_us"] = {key: round(1000 * Spread.of(values).median, 2) for key, values in times.items()}
    row["device_us"] = {
        key: round(1000 * Spread.of([clock.elapsed(run) / count for _ in range(_REPEATS)]).median, 2)
        for key, (run, count, _) in prepared.items()
    }
    return row


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The profile in Markdown."""
    yield "\n## Dispatch: host time per call by layer, microseconds\n"
    yield "| call | torch | ours, repeated | by the op | by _kernels | bare launch | torch, device | ours, device |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        host_us, device_us = row["host_us"], row["device_us"]
        cells = [f"{host_us[layer]:.1f}" if layer in host_us else "-" for layer in _LAYERS]
        cells += [f"{device_us['torch']:.1f}", f"{device_us['function']:.1f}"]
        yield f"| {row['name']} | " + " | ".join(cells) + " |"


_LAYERS = ("torch", "function", "op", "kernels", "launch")
