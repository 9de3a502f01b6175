#!/usr/bin/env python3
"""Prints how far stft, istft and their gradients are from torch in float64, with torch's own float32 error beside.

    python scripts/parity.py --quick                  # every route that works here, some minutes
    python scripts/parity.py --routes cuda --markdown

An error is the largest over a result, divided by the largest value of that result; each number is the worst of its
group. The status is 1 when a limit is passed: forward 5e-7 and not more than twice torch's own error (or a few
roundings), gradients 2e-6.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from parity_cases import (  # noqa: E402
    COMMON,
    LENGTHS,
    SMALL,
    TWICE,
    Case,
    Error,
    beyond_limits,
    full_grid,
    measure,
    quick_grid,
)

from mps_spectro import diagnostics, use_backend  # noqa: E402

ROUTES = {"torch": ("cpu", "torch"), "host": ("cpu", "host"), "mps": ("mps", "metal"), "cuda": ("cuda", "cuda")}
SHOWN = 40
COLUMNS = ("stft", "istft", "gradients")
Measured = list[tuple[Case, dict[str, Error]]]


def why_missing(route: str) -> str | None:
    """What keeps a route from running here; makes the simulated MPS device where there is no real one."""
    if route == "cuda":
        return None if torch.cuda.is_available() else "no CUDA device"
    if route == "mps" and not torch.backends.mps.is_available():
        import simulated_mps

        why = simulated_mps.why_unavailable()
        if why is None:
            simulated_mps.install()
        return why
    if route == "host":
        from mps_spectro._runtime import RuntimeUnavailable, host

        try:
            host.compile_source("")
        except RuntimeUnavailable as why:
            return str(why)
    return None


def column(quantity: str) -> str:
    return "gradients" if quantity.startswith("gradient") else quantity


def worst(measured: Iterable[tuple[Case, dict[str, Error]]]) -> dict[str, Error]:
    """The largest error of each column, ours and torch's apart."""
    ours: dict[str, float] = defaultdict(float)
    theirs: dict[str, float] = defaultdict(float)
    for _, errors in measured:
        for quantity, error in errors.items():
            # NaN passes for the largest
            ours[column(quantity)] = max(ours[column(quantity)], error.ours if error.ours == error.ours else 1e9)
            theirs[column(quantity)] = max(theirs[column(quantity)], error.torch)
    return {name: Error(ours[name], theirs[name]) for name in COLUMNS if name in ours}


def groups() -> dict[str, Callable[[Case], bool]]:
    """Rows of the table: which cases belong to each."""
    rows: dict[str, Callable[[Case], bool]] = {"n_fft 1 .. 130": lambda case: case.n_fft in SMALL}
    for n_fft in COMMON:
        rows[f"n_fft {n_fft}"] = lambda case, n_fft=n_fft: case.n_fft == n_fft  # type: ignore[misc]
    rows["n_fft, others"] = lambda case: case.n_fft not in SMALL + COMMON
    rows["T = n_fft // 2 + 1"] = lambda case: case.length == case.n_fft // 2 + 1
    for length in LENGTHS:
        rows[f"T = {length}"] = lambda case, length=length: case.length == length  # type: ignore[misc]
    rows["batch 70000"] = lambda case: case.batch == 70000
    rows["win_length < n_fft"] = lambda case: case.win_length is not None
    rows["hop > n_fft"] = lambda case: case.hop_length > case.n_fft
    rows["center=False"] = lambda case: not case.center
    rows["all"] = lambda case: True
    return rows


def table(measured: Measured, markdown: bool) -> list[str]:
    head = ["group", "cases"]
    for name in COLUMNS:
        head += [name, "torch"]
    rows = []
    for label, belongs in groups().items():
        chosen = [(case, errors) for case, errors in measured if belongs(case)]
        if not chosen:
            continue
        errors = worst(chosen)
        row = [label, str(len(chosen))]
        for name in COLUMNS:
            row += [f"{errors[name].ours:.2e}", f"{errors[name].torch:.2e}"] if name in errors else ["", ""]
        rows.append(row)
    if markdown:
        rule = ["---", *["--:"] * (len(head) - 1)]
        return ["| " + " | ".join(row) + " |" for row in [head, rule, *rows]]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in [head, *rows]
    ]


def beyond_twice(measured: Measured) -> str:
    """How many forward results are more than twice as far off as torch's, and the largest of them."""
    found = [
        (error.ours, error.torch, str(case))
        for case, errors in measured
        for quantity, error in errors.items()
        if column(quantity) != "gradients" and error.ours > TWICE * error.torch
    ]
    forward = sum(column(quantity) != "gradients" for _, errors in measured for quantity in errors)
    if not found:
        return f"none of {forward} forward results is more than twice as far off as torch's float32"
    ours, theirs, case = max(found)
    return (
        f"{len(found)} of {forward} forward results are more than twice as far off as torch's float32, "
        f"the largest of them {ours:.2e} where torch has {theirs:.2e} ({case})"
    )


def run(route: str, cases: list[Case], markdown: bool) -> list[str]:
    """Measures and prints one route; returns what is beyond its limits."""
    device, backend = ROUTES[route]
    diagnostics(reset=True)
    start = time.perf_counter()
    measured, problems = [], []
    with use_backend(backend):
        for case in cases:
            try:
                errors = measure(case, device)
            except (AssertionError, RuntimeError, TypeError, ValueError) as why:
                problems.append(f"{case}: {type(why).__name__}: {why}")
                continue
            measured.append((case, errors))
            problems += beyond_limits(case, device, errors)
    counts = diagnostics()
    simulated = route == "mps" and "simulated_mps" in sys.modules
    name = f"{route} (simulated)" if simulated else torch.cuda.get_device_name() if route == "cuda" else route
    title = f"{name}: {len(measured)} cases, {time.perf_counter() - start:.0f} s, calls {counts['backend_calls']}"
    print(f"### {title}\n" if markdown else f"--- {title}")
    print("\n".join(table(measured, markdown)))
    print(("\n" if markdown else "") + beyond_twice(measured))
    for problem in problems[:SHOWN]:
        print(f"BEYOND ITS LIMIT {problem}")
    if len(problems) > SHOWN:
        print(f"BEYOND ITS LIMIT {len(problems) - SHOWN} more")
    print(flush=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", default="torch,host,mps,cuda", help="comma-separated; default: all that work here")
    parser.add_argument("--quick", action="store_true", help="fewer arguments per size, a fifth of the cases")
    parser.add_argument("--markdown", action="store_true", help="tables for a document")
    options = parser.parse_args()
    cases = list(quick_grid() if options.quick else full_grid())
    print(f"torch {torch.__version__}, {len(cases)} cases\n")
    problems: list[str] = []
    for route in options.routes.split(","):
        if route not in ROUTES:
            parser.error(f"--routes takes {', '.join(ROUTES)}, got {route!r}")
        why = why_missing(route)
        if why is None:
            problems += run(route, cases, options.markdown)
        else:
            print(f"{route}: not here, {why}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
