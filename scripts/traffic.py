#!/usr/bin/env python3
"""Counts what the kernels move, on the host runtime: the same figures on any machine, no timing.

For stft, istft and log-mel bands, forward and backward: dispatches, bytes of device memory read and written (a word
counts once for each threadgroup that touches it), how many times the floor that is, barriers, and bytes of threadgroup
memory. The floor is every sample, spectrum and band once; of the backward of bands, which goes through a spectrum, the
signal, its gradient and that of the bands once and the spectrum twice. The signal is cut into items as on a large GPU
that is busy. These are apart from the tables (window, envelope, twiddles, bank), a few KiB that every group reads and
that stay in the device's caches. docs/performance.md says how to read the figures.

    scripts/traffic.py [--n-fft 1024 --hop 256] [--length 200000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from mps_spectro import _kernels, istft, stft, use_backend  # noqa: E402
from mps_spectro._bands import call_bands  # noqa: E402
from mps_spectro._runtime import host  # noqa: E402
from mps_spectro._runtime.counters import Counters  # noqa: E402
from mps_spectro.filters import melscale_fbanks  # noqa: E402

CONFIGURATIONS = ((512, 128), (1024, 256), (2048, 512), (4096, 1024), (400, 160), (20, 5), (321, 160), (1218, 160))
# what torch runs without a kernel on a device: views, questions, memory that nothing is written to
_FREE = {
    f"aten::{name}"
    for name in (
        "alias as_strided detach empty empty_like empty_strided expand is_conj is_neg narrow new_empty permute "
        "resolve_conj resolve_neg reshape select set_ slice squeeze t transpose unflatten unsqueeze view "
        "view_as_complex view_as_real _conj _neg_view _reshape_alias _unsafe_view result_type lift_fresh "
        "requires_grad_ split "
    ).split()
}
# what is moved, not looked up
_DATA = ("x", "spec", "grad", "out")
Work = Callable[[], Any]


class Machine:
    """The host runtime with every launch counted. Made before the first kernel is compiled."""

    def __init__(self) -> None:
        self._libraries: list[host.HostLibrary] = []
        compile_source = host.compile_source

        def counting(source: str) -> host.HostLibrary:
            self._libraries.append(compile_source(source, counted=True))
            return self._libraries[-1]

        host.compile_source = counting  # type: ignore[assignment]

    def cut_for(self, frames: int) -> None:
        """Makes kernels that are prepared from now on cut so many frames into items as a busy device would."""
        capacity = max(1, round(frames / _kernels._ITEM_BLOCKS))
        _kernels._capacity = lambda *_: capacity  # type: ignore[assignment]
        _kernels._FEW_BLOCKS = 0

    def launches(self) -> list[Counters]:
        """What was launched since the last time."""
        found = [launch for library in self._libraries for launch in library.counters]
        for library in self._libraries:
            library.counters.clear()
        return found


def bands_of(n_fft: int) -> int:
    return min(128, n_fft // 8)


def frames_of(length: int, n_fft: int, hop: int) -> int:
    return 1 + (length + 2 * (n_fft // 2) - n_fft) // hop


def works(length: int, n_fft: int, hop: int) -> dict[str, Work]:
    """The calls; a backward one has its forward behind it, so that it counts alone."""
    x = torch.randn(1, length)
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(x, n_fft, hop, window=window, return_complex=True).mT.contiguous().mT
    leaf, spectrum_leaf = x.clone().requires_grad_(), spectrum.clone().requires_grad_()
    transformed = stft(leaf, n_fft, hop, window=window)
    restored = istft(spectrum_leaf, n_fft, hop, window=window)
    grad = torch.randn_like(restored)
    bins_major = spectrum.contiguous()
    bank = melscale_fbanks(n_fft // 2 + 1, 0.0, 8000.0, bands_of(n_fft), 16000)
    frames = frames_of(length, n_fft, hop)
    log_mel = (window, bank, n_fft, hop, n_fft // 2, "reflect", frames, 1.0, 2.0, 0.0, False, "clamp", 1.0, 1e-5)
    bands = call_bands(leaf, *log_mel)
    bands_grad = torch.randn_like(bands)
    return {
        "stft": lambda: stft(x, n_fft, hop, window=window),
        "istft": lambda: istft(spectrum, n_fft, hop, window=window),
        "istft, bins-major": lambda: istft(bins_major, n_fft, hop, window=window),
        "stft backward": lambda: torch.autograd.grad(transformed, leaf, spectrum, retain_graph=True),
        "istft backward": lambda: torch.autograd.grad(restored, spectrum_leaf, grad, retain_graph=True),
        "log-mel": lambda: call_bands(x, *log_mel),
        "log-mel backward": lambda: torch.autograd.grad(bands, leaf, bands_grad, retain_graph=True),
    }


def floor_bytes(name: str, length: int, n_fft: int, hop: int) -> int:
    """What a call cannot do without."""
    frames = frames_of(length, n_fft, hop)
    signal, restored = 4 * length, 4 * ((frames - 1) * hop + n_fft % 2)
    spectrum, bands = 8 * frames * (n_fft // 2 + 1), 4 * frames * bands_of(n_fft)
    if name == "log-mel":
        return signal + bands
    if name == "log-mel backward":
        return 2 * signal + bands + 2 * spectrum
    return spectrum + (signal if name.startswith("stft") else restored)


def torch_kernels(work: Work) -> list[str]:
    """The operators of torch in the work that a GPU would run a kernel for, those inside of others once."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        work()
    seen = {event.key: event.self_cpu_time_total for event in watched.key_averages()}
    return sorted(name for name in seen if name.startswith("aten::") and name not in _FREE)


def count(machine: Machine, length: int, n_fft: int, hop: int) -> list[dict[str, Any]]:
    """A row per call of one configuration."""
    machine.cut_for(length // hop)
    short = works(8 * n_fft, n_fft, hop)
    others = {}
    for name, work in short.items():
        work()  # tables, envelopes and plans are made once
        others[name] = torch_kernels(work)
    rows = []
    for name, work in works(length, n_fft, hop).items():
        work()
        machine.launches()
        work()
        launches = machine.launches()
        rows.append(_row(name, length, n_fft, hop, launches, others[name]))
    return rows


def _row(name: str, length: int, n_fft: int, hop: int, launches: list[Counters], others: list[str]) -> dict[str, Any]:
    floor = floor_bytes(name, length, n_fft, hop)
    main = [t for launch in launches for t in launch.tensors if t.name in _DATA]
    tables = [t for launch in launches for t in launch.tensors if t.name not in _DATA]
    groups = sum(launch.groups for launch in launches)
    return {
        "call": name,
        "n_fft": n_fft,
        "hop": hop,
        "length": length,
        "dispatches": len(launches),
        "torch_kernels": others,
        "groups": groups,
        "floor_bytes": floor,
        "read_bytes": sum(t.read for t in main),
        "written_bytes": sum(t.written for t in main),
        "distinct_bytes": sum(t.distinct_read + t.distinct_written for t in main),
        "asked_bytes": sum(t.asked_read + t.asked_written for t in main),
        "table_bytes": sum(t.distinct_read for t in tables),
        "table_bytes_by_groups": sum(t.read for t in tables),
        "data_over_floor": round(sum(t.read + t.written for t in main) / floor, 4),
        "device_over_floor": round(sum(t.read + t.written for t in main + tables) / floor, 4),
        "barriers_per_group": round(sum(launch.threadgroup_barriers for launch in launches) / groups, 2),
        "simdgroup_barriers_per_group": round(sum(launch.simdgroup_barriers for launch in launches) / groups, 2),
        "threadgroup_bytes": sum(launch.local_read + launch.local_written for launch in launches),
        "threadgroup_over_floor": round(
            sum(launch.local_read + launch.local_written for launch in launches) / floor, 4
        ),
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Prints the rows in Markdown."""
    print(f"Bytes over the floor (what goes in and out, once), B1 T{rows[0]['length']}; barriers per group.\n")
    print(
        "| call | dispatches | torch kernels | read | written | signal and spectrum | each word once | with tables | "
        "tables once | barriers of a group, of a simdgroup | threadgroup memory |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for row in rows:
        floor = row["floor_bytes"]
        cells = (
            f"{row['call']} {row['n_fft']}/{row['hop']}",
            str(row["dispatches"]),
            str(len(row["torch_kernels"])),
            f"{row['read_bytes'] / floor:.3f}",
            f"{row['written_bytes'] / floor:.3f}",
            f"{row['data_over_floor']:.4f}",
            f"{row['distinct_bytes'] / floor:.3f}",
            f"{row['device_over_floor']:.3f}",
            f"{row['table_bytes'] / 1024:.1f} KiB",
            f"{row['barriers_per_group']:g}, {row['simdgroup_barriers_per_group']:g}",
            f"{row['threadgroup_over_floor']:.2f}",
        )
        print("| " + " | ".join(cells) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--n-fft", type=int, help="only this size (default: a list)")
    parser.add_argument("--hop", type=int, help="default: n_fft // 4")
    parser.add_argument("--length", type=int, default=200_000, help="samples of the signal (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    chosen = CONFIGURATIONS
    if options.n_fft:
        chosen = ((options.n_fft, options.hop or options.n_fft // 4),)
    torch.manual_seed(0)
    machine = Machine()
    with use_backend("host"):
        rows = [row for n_fft, hop in chosen for row in count(machine, options.length, n_fft, hop)]
    report(rows)
    if options.json:
        Path(options.json).write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
