"""What the kernels move, counted on the host runtime: figures that hold on every device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import require_route

from mps_spectro._runtime import host

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "traffic.py"
CALLS = ("stft", "istft", "stft backward", "istft backward")


@pytest.fixture(scope="module", autouse=True)
def _needs_a_compiler() -> None:
    require_route("host")


# --- the counters ----------------------------------------------------------------------------------------------------

COUNTED = """
kernel void k(device const float* x [[buffer(0)]], device float2* out [[buffer(1)]], constant long* p [[buffer(2)]],
              uint t [[thread_index_in_threadgroup]], uint i [[thread_position_in_grid]]) {
    threadgroup float s[64];
    s[t] = x[i] + x[i + 1] + x[0];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    out[i] = make_c(s[63 - t], 0.0f);
}
"""


def test_counters_of_a_kernel_that_can_be_counted_by_hand() -> None:
    library = host.compile_source(COUNTED, counted=True)
    x, out = torch.randn(257), torch.empty(256, 2)
    for _ in range(2):
        library.k(x, out, (1,), threads=256, group_size=64)
    first, second = library.counters
    assert first == second
    assert (first.kernel, first.groups) == ("k", 4)
    # a barrier of the group counts once in each of 4 groups, one of a simdgroup in each of their 2 simdgroups
    assert (first.threadgroup_barriers, first.simdgroup_barriers) == (4, 8)
    assert (first.local_read, first.local_written) == (256 * 4, 256 * 4)
    read, written = first.tensors
    assert first.tensor("x") is read and written.name == "out"
    # 65 words in each group, and x[0] in the three groups that have it not among them
    assert (read.read, read.distinct_read, read.asked_read) == (4 * (4 * 65 + 3), 4 * 257, 4 * 3 * 256)
    assert (written.written, written.distinct_written, written.asked_written) == (2048, 2048, 2048)
    assert (read.written, written.read) == (0, 0)


def test_only_counted_libraries_count() -> None:
    library = host.compile_source(COUNTED, checked=True)
    library.k(torch.randn(257), torch.empty(256, 2), (1,), threads=256, group_size=64)
    assert library.counters == []


# --- the kernels -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By call, at 1024/256. In a process of its own: nothing compiled before may answer."""
    file = tmp_path_factory.mktemp("traffic") / "traffic.json"
    command = [sys.executable, str(SCRIPT), "--n-fft", "1024", "--hop", "256", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert all(f"| {call} 1024/256 | 1 |" in done.stdout for call in CALLS)
    return {row["call"]: row for row in json.loads(file.read_text())["rows"]}


@pytest.mark.parametrize("call", CALLS)
def test_one_dispatch_per_call(figures: dict[str, dict[str, Any]], call: str) -> None:
    assert figures[call]["dispatches"] == 1


@pytest.mark.parametrize(
    "call",
    [
        "stft",
        "istft",
        "stft backward",
        "istft backward",
    ],
)
def test_torch_runs_no_kernel_beside_ours(figures: dict[str, dict[str, Any]], call: str) -> None:
    assert figures[call]["torch_kernels"] == []


@pytest.mark.parametrize(
    "call, most", [("stft", 1.15), ("istft backward", 1.15), ("istft", 1.35), ("stft backward", 1.35)]
)
def test_signal_and_spectrum_cross_the_bus_about_once(
    figures: dict[str, dict[str, Any]], call: str, most: float
) -> None:
    # at 1024/256 a group of four frames reads 7 hops of signal for every 4: 1.15 with the spectrum's 4.01 per hop
    assert 1.0 <= figures[call]["data_over_floor"] <= most


@pytest.mark.parametrize("call", CALLS)
def test_every_word_is_written_once_and_none_is_left_out(figures: dict[str, dict[str, Any]], call: str) -> None:
    row = figures[call]
    assert row["distinct_bytes"] == pytest.approx(row["floor_bytes"], rel=0.005)
    samples = row["length"] if call == "stft backward" else row["length"] // row["hop"] * row["hop"]
    spectrum = 8 * (1 + row["length"] // row["hop"]) * (row["n_fft"] // 2 + 1)
    assert row["written_bytes"] == (spectrum if call in ("stft", "istft backward") else 4 * samples)


@pytest.mark.parametrize(
    "call, most", [("stft", 1.5), ("istft backward", 1.55), ("istft", 1.35), ("stft backward", 1.35)]
)
def test_tables_read_by_every_group_stay_small(figures: dict[str, dict[str, Any]], call: str, most: float) -> None:
    assert figures[call]["device_over_floor"] <= most
    assert figures[call]["table_bytes"] <= 16 * 1024
