"""`mps-spectro bench` and scripts/bench.py."""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from typing import Any, Sequence

import torch

from .. import __version__, _backend, _demo_files
from .._runtime import RuntimeUnavailable, host
from . import dispatch, report
from .cases import SECTIONS, TITLES, Case, cases, recording_cases
from .clocks import Clock, clock_for
from .measure import Effort, measure
from .options import add_arguments
from .plot import plot

_FULL, _QUICK, _CPU = Effort(15, 4.0, 20.0), Effort(11, 2.0, 8.0), Effort(5, 20.0, 5.0)
_LONGEST_ON_CPU = 44_100  # samples of a recording that the shaders take on the CPU


def run(options: argparse.Namespace) -> int:
    """Measures, prints Markdown tables as they come, writes the files that were asked for. Returns the exit status."""
    try:
        clock, backend, note = _choose(options.device)
        recording = _demo_files.load(options.audio) if options.audio else None
    except (RuntimeError, _demo_files.DemoError) as why:
        print(f"mps-spectro bench: {why}", file=sys.stderr)
        return 1
    small = clock.kind == "cpu"
    chosen = [case for case in cases(small) if case.section in (options.section or SECTIONS)]
    chosen = [case for case in chosen if case.quick or not options.quick]
    effort = _CPU if small else _QUICK if options.quick else _FULL
    began = time.perf_counter()
    with _backend.use_backend(backend if small else "auto"):
        meta = _meta(options, clock, backend, note, effort)
        print(report.header(meta), flush=True)
        rows = _run_sections(chosen, clock, effort, meta)
        if recording is not None:
            rows += _run_recording(recording, clock, effort, meta)
        profile = []
        if options.dispatch_profile:
            profile = dispatch.profile(clock, backend)
            _say(dispatch.table(profile))
    if clock.kind == "cuda":
        _say(report.targets(rows, chosen, meta["bandwidth_gbps"]))
    meta["seconds"] = round(time.perf_counter() - began, 1)
    print(f"\n{meta['seconds']:.0f} s in all", flush=True)
    if options.json:
        report.save(options.json, meta, rows, profile)
    if options.plot and (missing := plot(options.plot, meta, rows)):
        print(missing, file=sys.stderr)
    return 1 if any("failed" in row for row in rows) else 0


def _choose(wanted: str | None) -> tuple[Clock, str, str]:
    """The device's clock, the backend that runs there, and what the reader should know."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = wanted or next(name for name, there in available.items() if there)
    if not available[kind]:
        raise RuntimeError(f"torch finds no {kind} device here")
    device = torch.device(kind, 0) if kind != "cpu" else torch.device("cpu")
    if kind != "cpu":
        return clock_for(device), {"cuda": "cuda", "mps": "metal"}[kind], ""
    try:
        host.compile_source("")
    except RuntimeUnavailable as why:
        return clock_for(device), "torch", f"small sizes only, and ours is plain torch here: {why}"
    note = "small sizes only: ours are the GPU's shaders, run on one core of the CPU to check them, not for speed"
    return clock_for(device), "host", note


def _meta(options: argparse.Namespace, clock: Clock, backend: str, note: str, effort: Effort) -> dict[str, Any]:
    return {
        "device": clock.name,
        "device_type": clock.kind,
        "backend": backend,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "version": __version__,
        "quick": options.quick,
        "sections": options.section or list(SECTIONS),
        "repeats": effort.repeats,
        "bandwidth_gbps": round(clock.bandwidth(), 1),
        "note": note,
    }


def _run_sections(chosen: list[Case], clock: Clock, effort: Effort, meta: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for section in dict.fromkeys(case.section for case in chosen):
        print(report.section_title(section), flush=True)
        for case in chosen:
            if case.section == section:
                rows.append(_one(case, clock, effort))
        _say(report.tables(section, rows, meta["bandwidth_gbps"]))
    return rows


def _run_recording(
    recording: tuple[torch.Tensor, int, str], clock: Clock, effort: Effort, meta: dict[str, Any]
) -> list[dict[str, Any]]:
    signal, rate, name = recording
    print(report.section_title("recording"), flush=True)
    print(f"{name}: {signal.shape[0]} channels, {rate} Hz, {signal.shape[1] / rate:.1f} s", flush=True)
    if clock.kind == "cpu" and signal.shape[1] > _LONGEST_ON_CPU:
        signal = signal[:, :_LONGEST_ON_CPU].contiguous()
        print(f"only its first {_LONGEST_ON_CPU} samples are used on the CPU", flush=True)
    print(flush=True)
    signal = signal.to(clock.device)
    rows = [_one(case, clock, effort, signal) for case in recording_cases(signal.shape[0], signal.shape[1])]
    _say(report.tables("recording", rows, meta["bandwidth_gbps"]))
    return rows


def _one(case: Case, clock: Clock, effort: Effort, signal: torch.Tensor | None = None) -> dict[str, Any]:
    if sys.stderr.isatty():
        print(f"\r\033[K{TITLES[case.section]}: {case.name}", end="", file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        # torch warns that the result of its own stft was resized, and the like
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        row = measure(case, clock, effort, signal)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return row


def _say(lines: Any) -> None:
    for line in lines:
        print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The script's entry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench.py", description=sys.modules[__package__ or ""].__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
