#!/usr/bin/env python3
"""Runs every kind of kernel under compute-sanitizer and prints which are clean. Needs CUDA and compute-sanitizer.

    python scripts/sanitize.py
    python scripts/sanitize.py --tools memcheck,racecheck,synccheck,initcheck --kinds mixed,chirp

The status is 0 when all are clean, 1 when one is not, 2 when nothing could run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# n_fft, hop, batch, frames between the edges: more groups than one, of every kind of plan (see mps_spectro/_plan.py)
KINDS = {
    "one sample": (1, 1, 2, 40),
    "one pass": (16, 4, 2, 40),
    "radix in a simdgroup": (320, 80, 2, 9),
    "mirrored by tens in a simdgroup": (400, 160, 2, 9),
    "mirrored by tens, other hop": (400, 90, 2, 9),
    "radix": (1280, 320, 2, 4),
    "radix, full memory": (7680, 1920, 1, 3),
    "mirrored, two in a simdgroup": (512, 128, 2, 17),
    "mirrored in a simdgroup": (1024, 256, 2, 9),
    "mirrored, other hop": (1024, 301, 2, 9),
    "mirrored": (2048, 512, 2, 5),
    "mirrored, full memory": (8192, 2048, 1, 3),
    "mixed in a simdgroup": (1000, 250, 2, 5),
    "mixed, prime 17 in a simdgroup": (340, 85, 2, 5),
    "mixed": (1320, 330, 2, 5),
    "mixed pair": (105, 26, 2, 21),
    "mixed, prime 29": (1218, 304, 2, 5),
    "mixed pair, prime 107": (321, 80, 2, 9),
    "mixed in place": (6006, 1501, 1, 3),
    "mixed pair in place": (3003, 750, 1, 4),
    "chirp in a simdgroup": (262, 65, 2, 9),
    "chirp": (514, 128, 2, 5),
    "chirp, full memory": (2062, 515, 1, 4),
    "chirp, split": (8186, 2046, 1, 2),
    "chirp pair in a simdgroup": (131, 32, 2, 9),
    "chirp pair": (263, 65, 2, 9),
    "chirp pair, full memory": (1149, 287, 1, 4),
    "chirp pair, split": (4091, 1022, 1, 3),
    "hop beyond n_fft": (64, 71, 2, 9),
}
# what the tools report about a kernel, one line each; a program's own output never begins so
_REPORT = re.compile(
    r"^========= +(?:(?:Error|Warning|Invalid|Race|Barrier|Uninitialized|Program hit|Potential|Misaligned).*)"
)
_BEGIN, _END = "kind begins: ", "kind ends: "


def child(kinds: list[str]) -> None:
    """Inside the sanitizer: forward, inverse both ways, envelope, folded edges, both layouts of the spectrum, bands."""
    sys.path.insert(0, str(ROOT))
    import torch

    import mps_spectro
    from mps_spectro import _kernels, _ops

    few = _kernels._FEW_BLOCKS

    def launch(n_fft: int, hop: int, batch: int, frames: int) -> None:
        # everything else happens on the CPU: the tool watches few kernels but ours
        half, length = n_fft // 2, n_fft + (frames + 1) * hop + 1
        length += length % 2  # rows of pairs: what is aligned takes the shorter ways in and out
        count = 1 + (length + 2 * half - n_fft) // hop
        window, x = torch.rand(n_fft).add(0.5).cuda(), torch.randn(batch, length)
        spec = torch.randn(batch, n_fft // 2 + 1, count, 2)
        adjacent, bins_major = spec.transpose(1, 2).contiguous().cuda().transpose(1, 2), spec.cuda()
        signals = (x.cuda(), x.repeat_interleave(2, 1).cuda()[:, ::2])
        full = (count - 1) * hop + n_fft
        env = torch.rand(min(full, 2 * n_fft + hop)).cuda()
        shape, cropped = (n_fft, hop, half, "reflect"), (n_fft, hop, half, "constant")
        for signal in signals:
            _ops.call_analysis(signal, window, None, *shape, count, 1.0, False)
            _ops.call_analysis(signal, window, None, *cropped, count, 1.0, False)
        _ops.call_analysis(signals[0], window, env, *shape, count, 1.0, True)
        # the slots of a group each on its own, as with many hops, and together on an item, as with few
        for _kernels._FEW_BLOCKS in (0, few):
            _kernels._launches.clear()
            _ops.call_synthesis(adjacent, window, None, *shape, length, 1.0, False)
            _ops.call_synthesis(adjacent, window, None, *cropped, length, 1.0, False)
            _ops.call_synthesis(adjacent, window, env, *cropped, length, 1.0, True)
        _ops.call_synthesis(bins_major, window, None, *cropped, length, 1.0, False)
        _ops.call_synthesis(bins_major, window, env, *shape, length, 1.0, True)
        bank = torch.zeros(min(39, n_fft // 4), n_fft // 2 + 1)
        for band, row in enumerate(bank):
            row[band : band + 3] = 0.5
        projection = bank.cuda() if len(bank) else None
        rest = (*shape, count, 1.0, 1.0, 1e-3, True, "add", 1.0, 1e-3)
        grad = torch.randn(batch, len(bank) or n_fft // 2 + 1, count).cuda()
        torch.ops.mps_spectro.bands(signals[0], window, projection, *rest)
        torch.ops.mps_spectro.bands_backward(grad, signals[0], window, projection, *rest, "x")
        torch.cuda.synchronize()

    with mps_spectro.use_backend("cuda"), torch.no_grad():
        for kind in kinds:
            print(_BEGIN + kind, flush=True)
            launch(*KINDS[kind])
            print(_END + kind, flush=True)


def watched(sanitizer: str, tool: str, kinds: list[str], seconds: float) -> tuple[dict[str, list[str]], list[str], str]:
    """Runs a child under a tool: reports by kind that began, the kinds it finished, and all it said."""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    if tool == "memcheck":
        command += ["--report-api-errors", "no"]  # torch asks the driver for things that not every machine has
    command += [sys.executable, str(Path(__file__).resolve()), "--child", "--kinds", ";".join(kinds)]
    # one allocation per tensor: inside a cached block nothing is out of bounds
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
        )
        text = done.stdout
    except subprocess.TimeoutExpired as late:
        text = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        text += f"\nstopped after {seconds:.0f} s\n"
    reports: dict[str, list[str]] = {}
    finished = []
    current = None
    for line in text.splitlines():
        if line.startswith(_BEGIN):
            current = line[len(_BEGIN) :]
            reports[current] = []
        elif line.startswith(_END):
            finished.append(line[len(_END) :])
        elif current is not None and _REPORT.match(line):
            reports[current].append(line)
    return reports, finished, text


def sanitize(sanitizer: str, tool: str, kinds: list[str], deadline: float) -> dict[str, str]:
    """Verdict by kind. A kernel that faults takes its process with it; the kinds after it get another one."""
    verdicts: dict[str, str] = {}
    while len(verdicts) < len(kinds) and time.monotonic() < deadline:
        todo = [kind for kind in kinds if kind not in verdicts]
        reports, finished, text = watched(sanitizer, tool, todo, deadline - time.monotonic())
        if not reports:
            print(f"--- {tool} did not get to the first kernel:\n{text[-4000:]}")
            break
        for kind, lines in reports.items():
            clean = not lines and kind in finished
            verdicts[kind] = "clean" if clean else f"DIRTY ({len(lines)} reports)" if lines else "DID NOT FINISH"
        dirty = [kind for kind in reports if verdicts[kind] != "clean"]
        if dirty:
            print(f"--- {tool}, {', '.join(dirty)}:\n{text[-12000:]}")
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default="memcheck,racecheck", help="comma-separated: also synccheck, initcheck")
    parser.add_argument("--kinds", default=";".join(KINDS), help="separated by semicolons; default: all")
    parser.add_argument("--sanitizer", default="compute-sanitizer", help="the program, where it is not on PATH")
    parser.add_argument("--seconds", type=float, default=480.0, help="time for everything")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kinds.split(";")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"--kinds takes {'; '.join(KINDS)}, got {unknown[0]!r}")
    if options.child:
        child(kinds)
        return 0
    sanitizer = shutil.which(options.sanitizer) or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer is None:
        print(f"{options.sanitizer} is not here: it comes with the CUDA toolkit; name it with --sanitizer")
        return 2
    start = time.monotonic()
    tools = options.tools.split(",")
    verdicts: dict[str, dict[str, str]] = {}
    for number, tool in enumerate(tools):
        # what is left is shared among the tools that are left
        left = start + options.seconds - time.monotonic()
        verdicts[tool] = sanitize(sanitizer, tool, kinds, time.monotonic() + left / (len(tools) - number))
    width = max(map(len, kinds))
    print("  ".join(["kind".ljust(width), *(tool.ljust(20) for tool in tools)]))
    for kind in kinds:
        print("  ".join([kind.ljust(width), *(verdicts[tool].get(kind, "NOT RUN").ljust(20) for tool in tools)]))
    print(f"{time.monotonic() - start:.0f} s")
    states = [verdicts[tool].get(kind, "NOT RUN") for tool in tools for kind in kinds]
    if all(state == "NOT RUN" for state in states):
        return 2
    return 0 if all(state == "clean" for state in states) else 1


if __name__ == "__main__":
    raise SystemExit(main())
