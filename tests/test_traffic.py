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
CALLS = ("stft", "istft", "istft, bins-major", "stft backward", "istft backward", "log-mel", "log-mel backward")
BANDS = 128


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


def dispatches(call: str) -> int:
    """One; the gradient of bands goes back to the spectrum in one and to the signal in another."""
    return 2 if call == "log-mel backward" else 1


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By call, at 1024/256. In a process of its own: nothing compiled before may answer."""
    file = tmp_path_factory.mktemp("traffic") / "traffic.json"
    command = [sys.executable, str(SCRIPT), "--n-fft", "1024", "--hop", "256", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert all(f"| {call} 1024/256 | {dispatches(call)} |" in done.stdout for call in CALLS)
    return {row["call"]: row for row in json.loads(file.read_text())["rows"]}


@pytest.mark.parametrize("call", CALLS)
def test_one_dispatch_per_call(figures: dict[str, dict[str, Any]], call: str) -> None:
    assert figures[call]["dispatches"] == dispatches(call)


@pytest.mark.parametrize("call", CALLS)
def test_torch_runs_no_kernel_beside_ours(figures: dict[str, dict[str, Any]], call: str) -> None:
    assert figures[call]["torch_kernels"] == []


# At 1024/256 a group of four frames reads 7 hops of signal for every 4: 1.15 with the spectrum's 4.01 per hop, 1.50
# with half a hop of bands, 1.07 with bands and the spectrum twice. An item of synthesis is about 48 hops, or 48 steps
# of 7 frames, and repeats 3 frames.
@pytest.mark.parametrize(
    ("call", "most"),
    [
        ("stft", 1.15),
        ("istft backward", 1.15),
        ("istft", 1.05),
        ("istft, bins-major", 1.01),
        ("stft backward", 1.05),
        ("log-mel", 1.50),
        ("log-mel backward", 1.08),
    ],
)
def test_data_crosses_the_bus_about_once(figures: dict[str, dict[str, Any]], call: str, most: float) -> None:
    assert 1.0 <= figures[call]["data_over_floor"] <= most


@pytest.mark.parametrize("call", CALLS)
def test_every_word_is_written_once_and_none_is_left_out(figures: dict[str, dict[str, Any]], call: str) -> None:
    row = figures[call]
    assert row["distinct_bytes"] == pytest.approx(row["floor_bytes"], rel=0.005)
    frames = 1 + row["length"] // row["hop"]
    signal, restored = 4 * row["length"], 4 * (frames - 1) * row["hop"]
    spectrum, bands = 8 * frames * (row["n_fft"] // 2 + 1), 4 * frames * BANDS
    written = {
        "stft": spectrum,
        "istft": restored,
        "istft, bins-major": restored,
        "stft backward": signal,
        "istft backward": spectrum,
        "log-mel": bands,
        "log-mel backward": spectrum + signal,
    }
    assert row["written_bytes"] == written[call]


# a group of log-mel reads 14 KiB of window, twiddles and bank, and 4 frames share them
@pytest.mark.parametrize(
    ("call", "most", "kilobytes"),
    [
        ("stft", 1.5, 16),
        ("istft backward", 1.55, 16),
        ("istft", 1.1, 16),
        ("istft, bins-major", 1.02, 16),
        ("stft backward", 1.1, 16),
        ("log-mel", 3.9, 16),
        ("log-mel backward", 1.6, 32),
    ],
)
def test_tables_read_by_every_group_stay_small(
    figures: dict[str, dict[str, Any]], call: str, most: float, kilobytes: int
) -> None:
    assert figures[call]["device_over_floor"] <= most
    assert figures[call]["table_bytes"] <= kilobytes * 1024


def test_frames_in_a_simdgroup_wait_for_the_others_only_to_share(figures: dict[str, dict[str, Any]]) -> None:
    """Not for a transform: bands are summed by all threads of a group, and so are the frames of spectra by bins."""
    assert all(
        figures[call]["barriers_per_group"] == 0 for call in ("stft", "istft", "stft backward", "istft backward")
    )
    assert figures["log-mel"]["barriers_per_group"] == 1
    assert figures["log-mel backward"]["barriers_per_group"] <= 2
    # three for every 7 frames
    frames = 1 + figures["istft"]["length"] // figures["istft"]["hop"]
    steps = figures["istft, bins-major"]["groups"] * figures["istft, bins-major"]["barriers_per_group"] / 3
    assert steps <= 1.02 * frames / 7
