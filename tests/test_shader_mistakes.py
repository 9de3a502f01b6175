"""Mistakes planted in the package's own kernels are found by the checks, so that a clean run says something.

Each kernel runs unchanged first. Then without one of its barriers at a time, none of which is there for nothing, and
with the limits of its loops and of its memory off by one.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Callable, Iterator

import pytest
import torch
from conftest import require_route
from fences import forget_launches

from mps_spectro import _band_kernels, _kernels
from mps_spectro._bands_reference import BandsArguments
from mps_spectro._runtime import host
from mps_spectro._runtime.source import assemble, shader_directory

BARRIER = re.compile(r"\b(?:threadgroup_barrier|simdgroup_barrier|SLOT_BARRIER)\([^;]*\);")
KERNELS = {
    "analysis": "stft.metal",
    "synthesis": "istft.metal",
    "abreast": "abreast.metal",
    "bands": "bands.metal",
    "gains": "gains.metal",
}
N_BANDS = 5


def own_text(shader: str) -> str:
    """Of a shader what stands behind its includes."""
    return re.split(r"^#include .*\n", (shader_directory() / shader).read_text(), flags=re.MULTILINE)[-1]


# --- runs that every line matters to ----------------------------------------------------------------------------------


def run_analysis(n_fft: int, hop: int) -> None:
    x, window = torch.randn(3, 5 * hop + n_fft), torch.rand(n_fft)
    _kernels.analysis("host", x, window, None, n_fft, hop, 0, "constant", 5, 1.0, False)


def run_synthesis(n_fft: int, hop: int, frames_adjacent: bool = False, folded: bool = False) -> None:
    spec = torch.randn(2, n_fft // 2 + 1, 21, 2)
    spec = spec if frames_adjacent else spec.transpose(1, 2).contiguous().transpose(1, 2)
    offset = n_fft // 2 if folded else 0
    shape = (n_fft, hop, offset, "reflect", 20 * hop + n_fft - 2 * offset - 2, 1.0, False)
    _kernels.synthesis("host", spec, torch.rand(n_fft), None, *shape)


def run_bands(name: str, n_fft: int, hop: int) -> None:
    """The last group is not full, and bands are no whole number of simdgroups."""
    x, window = torch.randn(3, 5 * hop + n_fft), torch.rand(n_fft)
    basis = torch.zeros(N_BANDS, n_fft // 2 + 1)
    for band in range(N_BANDS):
        basis[band, band : band + 3] = 1.0
    rest = BandsArguments(n_fft, hop, 0, "constant", 5, 1.0, 2.0, 0.0, False, "add", 1.0, 1.0)
    grad = () if name == "bands" else (torch.randn(3, N_BANDS, 5),)
    assert getattr(_band_kernels, name)("host", x, window, basis, *grad, *rest) is not None


Run = Callable[[], None]
RUNS: dict[str, list[Run]] = {
    "analysis": [partial(run_analysis, 320, 80)],
    "synthesis": [
        partial(run_synthesis, 8192, 2048, False, True),
        partial(run_synthesis, 100, 25, False, True),
        partial(run_synthesis, 320, 80),
    ],
    # steps that end with an item, and an item that is longer than that because of its folded edge
    "abreast": [
        partial(run_synthesis, 128, 32, True, True),
        partial(run_synthesis, 2048, 512),
        partial(run_synthesis, 1024, 128, False, True),
    ],
    # two frames as one; a frame in the memory of its transform; a frame mirrored
    "bands": [partial(run_bands, "bands", n_fft, n_fft // 4) for n_fft in (105, 320, 128)],
    "gains": [partial(run_bands, "gains", n_fft, n_fft // 4) for n_fft in (105, 320, 128)],
}


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Has the own text of a kernel replaced in what is compiled, with every access checked."""
    require_route("host")

    def edit(kernel: str, text: str) -> None:
        original = own_text(KERNELS[kernel])

        def library(backend: str, shader: str, defines: Any, device: int) -> Any:
            assert shader == KERNELS[kernel]
            source = assemble(shader, defines)
            assert source.endswith(original)
            return host.compile_source(source.removesuffix(original) + text, checked=True, seed=3)

        forget_launches()
        monkeypatch.setattr(_kernels, "library", library)

    # several items in a row, of several steps
    monkeypatch.setattr(_kernels, "_capacity", lambda backend, device, plan, kernel: 60 * plan.abreast or 6)
    monkeypatch.setattr(_kernels, "_ITEM_STEPS", 1)
    yield edit
    forget_launches()


def faults(kernel: str) -> list[str]:
    """What the runs of a kernel raise, up to the first."""
    for run in RUNS[kernel]:
        try:
            run()
        except host.ShaderFault as fault:
            return [fault.kind]
    return []


# by default the kernels that share threadgroup memory among all threads of a group
OTHERS = ("analysis", "synthesis")


@pytest.mark.parametrize("kernel", [pytest.param(k, marks=pytest.mark.slow if k in OTHERS else ()) for k in KERNELS])
def test_kernels_without_mistakes(kernel: str, edited: Callable[[str, str], None]) -> None:
    edited(kernel, own_text(KERNELS[kernel]))
    assert faults(kernel) == []


BARRIERS = [
    pytest.param(kernel, number, marks=pytest.mark.slow if kernel in OTHERS else ())
    for kernel, shader in KERNELS.items()
    for number in range(len(BARRIER.findall(own_text(shader))))
]


@pytest.mark.parametrize(("kernel", "number"), BARRIERS)
def test_no_barrier_can_be_left_out(kernel: str, number: int, edited: Callable[[str, str], None]) -> None:
    text = own_text(KERNELS[kernel])
    place = list(BARRIER.finditer(text))[number]
    edited(kernel, text[: place.start()] + ";" + text[place.end() :])
    (kind,) = faults(kernel)
    assert kind.startswith("race") or kind == "uninitialised"


# kernel, what its text has, and what has it do too much
LIMITS = [
    ("bands", "share.band < count &&", ""),
    ("bands", "&& frame_exists(f, first_unit, p)", ""),
    ("gains", "share.band < bands &&", ""),
    ("gains", "&& frame_exists(f, first_unit, p)", ""),
    ("gains", "if (both)", "if (true)"),
    ("gains", "if (slot.active)", "if (true)"),
    ("abreast", "f < ABREAST", "f <= ABREAST"),
    ("abreast", "frame < p[P_FRAMES]", "frame <= p[P_FRAMES]"),
    ("abreast", "frame >= 0", "frame >= -1"),
    ("abreast", "&& block < end_block", ""),
    ("abreast", "first_frame >= first_block &&", ""),
]


@pytest.mark.parametrize(
    ("kernel", "right", "wrong"),
    [pytest.param(*limit, marks=pytest.mark.slow if number % 2 else ()) for number, limit in enumerate(LIMITS)],
)
def test_no_limit_can_be_passed(kernel: str, right: str, wrong: str, edited: Callable[[str, str], None]) -> None:
    text = own_text(KERNELS[kernel])
    assert right in text, f"{KERNELS[kernel]} no longer says {right!r}: plant this mistake in what it says now"
    edited(kernel, text.replace(right, wrong))
    (kind,) = faults(kernel)
    assert kind.startswith("race") or kind in ("out of bounds", "uninitialised")
