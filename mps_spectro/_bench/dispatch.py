"""Where a small call's time goes: Python, the dispatcher, the launch, the device."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import torch

from .. import _kernels
from .._ops import call_analysis, call_synthesis
from .._runtime import cuda, host
from ..istft import istft
from ..stft import stft
from .cases import Case
from .clocks import Clock, Spread

_SHAPES = ((1, 16_000, 512, 128), (1, 16_000, 1024, 256), (4, 160_000, 1024, 256), (8, 480_000, 1024, 256))
_CALLS, _REPEATS = 200, 11  # few enough calls that the device's queue does not fill up and stop the host
_LAUNCHES = {"cuda": (cuda.Kernel, ("__call__", "launch")), "host": (host.HostKernel, ("__call__",))}


@contextlib.contextmanager
def _recorded(backend: str) -> Iterator[list[Callable[[], Any]]]:
    """The launches made inside, as functions that make them again. Metal's kernels cannot be watched: none there."""
    launches: list[Callable[[], Any]] = []
    if backend not in _LAUNCHES:
        yield launches
        return
    kernel_class, names = _LAUNCHES[backend]
    originals = {name: getattr(kernel_class, name) for name in names}
    inside = False

    def watching(original: Callable[..., Any]) -> Callable[..., Any]:
        def launch(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:  # one entry stands on another
                return original(*args, **kwargs)
            launches.append(lambda: original(*args, **kwargs))
            inside = True
            try:
                return original(*args, **kwargs)
            finally:
                inside = False

        return launch

    for name, original in originals.items():
        setattr(kernel_class, name, watching(original))
    try:
        yield launches
    finally:
        for name, original in originals.items():
            setattr(kernel_class, name, original)


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
    if name == "stft":
        shape = (n_fft, hop, n_fft // 2, "reflect", case.frames, 1.0, False)
        layers = {
            "torch": lambda: torch.stft(x, n_fft, hop, window=window, return_complex=True),
            "function": lambda: stft(x, n_fft, hop, window=window),
            "op": lambda: call_analysis(x, window, None, *shape),
            "kernels": lambda: _kernels.analysis(backend, x, window, None, *shape),
        }
    else:
        shape = (n_fft, hop, n_fft // 2, "constant", samples, 1.0 / n_fft, True)
        layers = {
            "torch": lambda: torch.istft(spectrum, n_fft, hop, window=window),
            "function": lambda: istft(spectrum, n_fft, hop, window=window),
            "op": lambda: call_synthesis(pairs, window, None, *shape),
            "kernels": lambda: _kernels.synthesis(backend, pairs, window, None, *shape),
        }
    if backend == "torch":
        del layers["kernels"]
    for call in layers.values():
        call()
    if backend != "torch":
        with _recorded(backend) as launches:
            layers["kernels"]()
        if len(launches) == 1:
            layers["launch"] = launches[0]
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
    """The profile in Markdown: each column is all that lies below it too."""
    yield "\n## Dispatch: host time per call by layer, microseconds\n"
    yield (
        "| call | torch, host | ours, host | of it the op | of it arguments and output | of it the launch | "
        "torch, device | ours, device |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    for row in rows:
        host_us, device_us = row["host_us"], row["device_us"]
        cells = [f"{host_us[layer]:.1f}" if layer in host_us else "-" for layer in _LAYERS]
        cells += [f"{device_us['torch']:.1f}", f"{device_us['function']:.1f}"]
        yield f"| {row['name']} | " + " | ".join(cells) + " |"


_LAYERS = ("torch", "function", "op", "kernels", "launch")
