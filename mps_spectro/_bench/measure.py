"""One case: errors, memory, and the times of all contenders in turns."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

import torch

from . import analyses, contenders, front_ends
from .cases import Case
from .clocks import Clock, Prepared, Spread
from .comparison import ON_THE_HOST, Comparison, Work

_FRAMED_COPIES = 4  # frames-sized tensors that the baselines hold at a time, about


@dataclass(frozen=True)
class Effort:
    """How much is spent on a case."""

    repeats: int
    sample_ms: float  # of device time in one measurement
    limit_s: float  # after which a case has had enough repeats, if it has three


def _too_large(case: Case, free: int | None) -> str | None:
    frames = 4 * case.batch * case.frames * case.n_fft
    copies = _FRAMED_COPIES * (2 if case.work.endswith("backward") else 1)
    needed = copies * frames + 4 * case.spectrum_bytes
    if free is not None and needed > 0.9 * free:
        return f"needs about {needed >> 30} GiB, {free >> 30} GiB are free"
    return None


def measure(case: Case, clock: Clock, effort: Effort, signal: torch.Tensor | None = None) -> dict[str, Any]:
    """A row of the report: see benchmarks/README.md."""
    row: dict[str, Any] = {
        "name": case.name,
        "section": case.section,
        "work": case.work,
        "batch": case.batch,
        "length": case.length,
        "n_fft": case.n_fft,
        "hop": case.hop,
        "layout": case.layout,
        "bands": case.bands,
        "note": case.note,
        "quick": case.quick,
        "floor_bytes": case.floor_bytes,
    }
    try:
        why = _too_large(case, clock.free_bytes())
        if why is None:
            _fill(row, case, clock, effort, signal)
        else:
            row["skipped"] = why
    except torch.OutOfMemoryError as error:
        row["skipped"] = f"out of memory: {str(error).splitlines()[0]}"
    except RuntimeError as error:
        row["failed"] = str(error).splitlines()[0]
    finally:
        gc.collect()
        clock.release()
    return row


def compare(case: Case, device: torch.device, signal: torch.Tensor | None = None) -> Comparison:
    """The row's contenders and their reference, with data on the device."""
    makers = {"frontends": front_ends.compare, "features": analyses.compare_features, "cqt": analyses.compare_cqt}
    if case.section in makers:
        return makers[case.section](case, device)
    return contenders.compare(case, device, signal)


def _fill(row: dict[str, Any], case: Case, clock: Clock, effort: Effort, signal: torch.Tensor | None) -> None:
    comparison = compare(case, clock.device, signal)
    works: dict[str, Work] = {}
    found: dict[str, dict[str, Any]] = {name: {} for name in comparison.makers}
    for name, note in comparison.notes.items():
        found[name]["note"] = note
    for name, make in comparison.makers.items():
        try:
            work = make()
            before = clock.allocated()
            results = work()
        except RuntimeError as error:  # a library that has no transform of this size, or is not there
            if name == "ours":
                raise
            found[name]["failed"] = str(error).splitlines()[0]
            continue
        works[name] = work
        row["result_bytes"] = sum(result.nbytes for result in results)
        del results
        clock.synchronize()
        found[name]["kept_bytes"] = clock.allocated() - before
        found[name]["peak_bytes"] = None if name in ON_THE_HOST else clock.peak(work)
    _add_errors(found, comparison, clock, works)
    _add_times(found, clock, effort, works)
    row["contenders"] = found
    row.update(_summary(case, found))


def _add_errors(found: Any, comparison: Comparison, clock: Clock, works: dict[str, Work]) -> None:
    # MPS has no float64
    error = comparison.reference(torch.device("cpu") if clock.kind == "mps" else clock.device)
    for name, work in works.items():
        found[name]["error"] = error(work())


def _add_times(found: Any, clock: Clock, effort: Effort, works: dict[str, Work]) -> None:
    # graphs keep the memory of their calls
    free, peaks = clock.free_bytes(), sum(found[name]["peak_bytes"] or 0 for name in works)
    graphs = free is None or 3 * peaks < free
    on_device = {name: work for name, work in works.items() if name not in ON_THE_HOST}
    hot = {name: clock.prepare(work, effort.sample_ms, graphs) for name, work in on_device.items()}
    cold = {name: clock.prepare_cold(work, graphs) for name, work in on_device.items()}
    calls = {}
    for name, work in works.items():
        once = min(clock.wall(work, 1), clock.wall(work, 2))
        calls[name] = max(1, min(300, round(2 * effort.sample_ms / once)))
    times: dict[tuple[str, str], list[float]] = {}
    names, start = list(works), time.perf_counter()
    for repeat in range(effort.repeats):
        if repeat >= 3 and time.perf_counter() - start > effort.limit_s:
            break
        # in turns, and each round begins with another one
        turn = names[repeat % len(names) :] + names[: repeat % len(names)]
        for name in filter(hot.__contains__, turn):
            times.setdefault((name, "gpu"), []).append(clock.elapsed(hot[name].run) / hot[name].calls)
        for name in filter(cold.__contains__, turn):
            times.setdefault((name, "cold"), []).append(clock.cold(cold[name].run))
        for name in turn:
            times.setdefault((name, "wall"), []).append(clock.wall(works[name], calls[name]))
    for (name, which), values in times.items():
        prepared: Prepared | None = {"gpu": hot, "cold": cold}.get(which, {}).get(name)
        found[name][f"{which}_ms"] = {
            **{key: round(value, 6) for key, value in Spread.of(values)._asdict().items()},
            "method": prepared.method if prepared else "wall",
            "repeats": len(values),
        }


def _summary(case: Case, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios of each rival to ours: above 1 is better than it is. Those to torch have the bare name of the measure."""
    ours = found["ours"]
    ratios: dict[str, float] = {}
    for which, key in (("gpu", "gpu_ms"), ("cold", "cold_ms"), ("wall", "wall_ms"), ("memory", "peak_bytes")):
        for rival, theirs in found.items():
            if rival != "ours" and theirs.get(key) and ours[key]:
                label = which if rival == "torch" else f"{which}_{rival}"
                ratios[label] = round(_amount(theirs[key]) / _amount(ours[key]), 4)
    return {"ratios": ratios, "gbps": round(case.floor_bytes / ours["gpu_ms"]["median"] / 1e6, 2)}


def _amount(measured: Any) -> float:
    return float(measured["median"] if isinstance(measured, dict) else measured)
