#!/usr/bin/env python3
"""Compares a benchmark run with a baseline, by ratios to rivals in the same run and never by absolute time.

    scripts/check_benchmarks.py                          # measures now (--quick) and compares with benchmarks/
    scripts/check_benchmarks.py NEW.json                 # compares a run that was saved with --json
    scripts/check_benchmarks.py NEW.json BASELINE.json

A ratio below the baseline's by more than --allowed-regression, and a row or a ratio that is missing, are failures; the
exit status is then 1. A quick run is compared with the baseline's quick rows. Another device is a warning: its ratios
may differ for good reasons. Ratios to the framed baseline, to libraries on the CPU
and to our own compiled functions are not compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Sequence

ROOT = Path(__file__).resolve().parent.parent
METRICS = {
    "gpu": "hot time",
    "cold": "cold time",
    "wall": "eager wall time",
    "memory": "peak memory",
}
NOT_COMPARED = ("framed", "librosa", "compiled")


def compare(new: dict[str, Any], base: dict[str, Any], allowed: float, metrics: Sequence[str]) -> list[str]:
    """What got worse or is missing, one line each."""
    failures = []
    found = {row["name"]: row for row in new["cases"]}
    for row in base["cases"]:
        if new["quick"] and not row["quick"]:
            continue
        wanted = {
            ratio: value
            for ratio, value in row.get("ratios", {}).items()
            if _parts(ratio)[0] in metrics and _parts(ratio)[1] not in NOT_COMPARED
        }
        if not wanted:
            continue  # not measured then either
        name, there = row["name"], found.get(row["name"])
        if there is None or "ratios" not in there:
            why = "" if there is None else f": {there.get('skipped') or there.get('failed')}"
            failures.append(f"{name}: missing{why}")
            continue
        for ratio, before in wanted.items():
            now = there["ratios"].get(ratio)
            metric, rival = _parts(ratio)
            if now is None:
                failures.append(f"{name}: {METRICS[metric]} beside {rival} is missing")
            elif not now >= before * (1 - allowed):
                failures.append(
                    f"{name}: {METRICS[metric]} {now:.2f}x of {rival}, was {before:.2f}x ({now / before - 1:+.0%})"
                )
    return failures


def _parts(ratio: str) -> tuple[str, str]:
    """What was measured, and beside whom: "gpu" is beside torch, "gpu_framed" beside the framed baseline."""
    metric, _, rival = ratio.partition("_")
    return metric, rival or "torch"


def warnings_about(new: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Differences between the runs that may explain others."""
    return [
        f"{what} differs: {new[key]} now, {base[key]} in the baseline"
        for key, what in (("device", "device"), ("backend", "backend"), ("torch", "torch"))
        if new[key] != base[key]
    ]


def baseline_for(device: str, folder: Path) -> Path | None:
    """The baseline of this device, else the only one there is."""
    files = sorted(folder.glob("*.json"))
    for file in files:
        if json.loads(file.read_text())["device"] == device:
            return file
    return files[0] if len(files) == 1 else None


def _measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "new.json"
        script = ROOT / "scripts" / "bench.py"
        subprocess.run([sys.executable, str(script), "--quick", "--json", str(file)], check=True)
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("new", nargs="?", type=Path, help="JSON of the new run (default: measure now)")
    parser.add_argument("baseline", nargs="?", type=Path, help="default: the one in benchmarks/ for the device")
    parser.add_argument("--allowed-regression", type=float, default=0.15, metavar="R", help="default: %(default)s")
    parser.add_argument(
        "--metric", action="append", choices=METRICS, help="only this ratio; may be repeated (default: all)"
    )
    options = parser.parse_args(argv)
    new = json.loads(options.new.read_text()) if options.new else _measure()
    file = options.baseline or baseline_for(new["device"], ROOT / "benchmarks")
    if file is None:
        print(f"no baseline for {new['device']} in benchmarks/", file=sys.stderr)
        return 1
    base = json.loads(file.read_text())
    if new["schema"] != base["schema"]:
        print(f"schema {new['schema']} cannot be compared with {base['schema']} of {file}", file=sys.stderr)
        return 1
    for warning in warnings_about(new, base):
        print(f"warning: {warning}", file=sys.stderr)
    failures = compare(new, base, options.allowed_regression, options.metric or list(METRICS))
    for failure in failures:
        print(f"FAIL {failure}")
    counted = sum(not new["quick"] or row["quick"] for row in base["cases"] if "ratios" in row)
    print(f"{counted} rows compared with {file.name}: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
