"""The plan keeps every size within a threadgroup's limits and covers it completely; no device needed."""

import math
import re

import pytest
import torch

from mps_spectro._plan import ELEMENTS, MAX_MEMORY, MAX_THREADS, abreast, factor, make_plan, segments, supported
from mps_spectro._runtime.source import shader_directory
from mps_spectro._tables import table_for

ALL_SIZES = [n for n in range(1, 8193) if supported(n)]
OPS = ("analysis", "synthesis", "bands", "gains")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("run_time_size", [False, True])
def test_every_size_fits_a_threadgroup(op, run_time_size):
    for n_fft in ALL_SIZES:
        plan = make_plan(n_fft, op, run_time_size)
        defines = dict(plan.defines)
        assert plan.points == (n_fft if n_fft % 2 else n_fft // 2)
        assert math.prod(plan.radices) == plan.fft_points
        assert plan.memory <= MAX_MEMORY and plan.group <= MAX_THREADS
        assert plan.slots >= 1 and plan.slots * plan.threads <= plan.group
        assert defines["RING"] * plan.threads >= n_fft, n_fft
        words = plan.fft_points // 2 if defines["SPLIT"] else plan.fft_points
        if plan.kind == "mixed":
            passes = plan.radices[1:] if plan.prime else plan.radices
            assert len(passes) <= 7 and (defines["PING_PONG"] or not plan.prime)
            assert plan.slots * plan.points * (defines["PING_PONG"] + 1) <= plan.exchange
            for radix in passes:
                held = plan.threads * (ELEMENTS // radix)
                assert defines["PING_PONG"] or held >= plan.points // radix, (n_fft, radix)
        else:
            assert plan.slots * defines["SLOT_SIZE"] == plan.exchange
            assert defines["SLOT_SIZE"] >= max(words, plan.points), n_fft
            assert defines["ELEMENTS"] <= max(ELEMENTS, 2 * plan.mirrored)
            assert all(defines["ELEMENTS"] * plan.threads >= plan.fft_points for _ in plan.radices)
        if plan.mirrored:
            assert plan.radices[0 if op == "synthesis" else -1] == plan.mirrored and plan.mirrored in (8, 10)
            assert 2 * plan.mirrored * plan.threads == plan.points and defines["ELEMENTS"] == 2 * plan.mirrored
        if plan.kind == "bluestein":
            assert plan.fft_points >= 2 * plan.points - 1 and plan.radices[0] == plan.radices[-1]
            # the product with the chirp's spectrum relies on exact coverage
            assert all(plan.fft_points // r % plan.threads == 0 for r in plan.radices)


def test_simd_barrier_only_where_a_frame_stays_in_one_simdgroup():
    for n_fft in ALL_SIZES:
        plan = make_plan(n_fft)
        defines = dict(plan.defines)
        if defines["SIMD_SLOTS"]:  # whole frames, and threads left over
            assert defines["SIMD_SLOTS"] == 32 // plan.threads and defines["SIMD_BARRIER"]
            assert plan.group * defines["SIMD_SLOTS"] == 32 * plan.slots
        elif defines["SIMD_BARRIER"]:
            assert 32 % plan.threads == 0


@pytest.mark.parametrize("op", OPS)
def test_run_time_sizes_share_few_kernels(op):
    kernels = {make_plan(n_fft, op, run_time_size=True).defines for n_fft in ALL_SIZES}
    assert len(kernels) <= 20
    sweep = {make_plan(round(1024 * 2 ** (step / 120)), op, run_time_size=True).defines for step in range(-120, 121)}
    assert len(sweep) <= 12


@pytest.mark.parametrize("op", ["bands", "gains"])
@pytest.mark.parametrize("run_time_size", [False, True])
def test_threads_hold_the_bins_and_share_the_frames(op, run_time_size):
    (held,) = re.findall(r"#define HELD (\d+)", (shader_directory() / "powers.h").read_text())
    for n_fft in ALL_SIZES:
        plan = make_plan(n_fft, op, run_time_size)
        together = dict(plan.defines)["TOGETHER"]
        # a thread sums bands of so many frames of its group, all in one slot or in slots a whole number apart
        assert plan.slots * plan.frames_per_unit % together == 0 and together % plan.frames_per_unit == 0
        if not plan.mirrored:
            assert plan.threads * int(held) >= plan.points // 2 + 1, n_fft
        # the powers of a unit's frames take the place of its transform
        assert plan.frames_per_unit * (plan.points // plan.frames_per_unit + 1) <= 2 * plan.slot_stride, n_fft
        assert plan.slots * plan.slot_stride <= plan.exchange


@pytest.mark.parametrize("frames_contiguous", [False, True])
def test_frames_abreast(frames_contiguous):
    found = {}
    for alone in (make_plan(n_fft, "synthesis") for n_fft in ALL_SIZES):
        n_fft = alone.n_fft
        if not alone.mirrored:
            assert not segments(alone, n_fft)
            continue
        plan = abreast(alone, frames_contiguous)
        if plan is None:
            # slots do not follow each other thread by thread, or no three frames fit, whatever lies between them
            defines = dict(alone.defines)
            assert defines["SIMD_SLOTS"] or 3 * 8 * defines["SLOT_SIZE"] > MAX_MEMORY
            continue
        found[n_fft] = plan.abreast
        assert plan.abreast >= 3 and plan.abreast == plan.slots
        assert plan.memory <= MAX_MEMORY and plan.group <= MAX_THREADS and plan.resident >= 1
        assert plan.group == plan.slots * plan.threads and plan.threads == alone.threads
        # a whole spectrum, with its last bin, is fetched into a slot
        assert plan.slot_stride >= plan.points + 1 and plan.slots * plan.slot_stride <= plan.exchange
        changed = dict(set(plan.defines) - set(alone.defines))
        changed |= {"STAGED": dict(plan.defines)["STAGED"]}
        assert set(changed) <= {"SLOTS", "ABREAST", "STAGED", "GROUP", "SLOT_SIZE", "EXCHANGE", "RESIDENT"}
        assert (changed["ABREAST"], changed["STAGED"]) == (plan.abreast, int(frames_contiguous))
        hops = [hop for hop in range(1, n_fft + 1) if segments(alone, hop)]
        assert len(hops) == alone.radices[-1] and n_fft in hops and n_fft // 4 in hops
        for hop in hops:
            hop_pairs = segments(alone, hop) * plan.points // plan.radices[-1]
            # every thread finishes a whole number of pairs in a step, and what stays open moves down by as many
            assert 2 * hop_pairs == hop and hop_pairs % plan.threads == 0
            reached = plan.points + (plan.abreast - 1) * hop_pairs
            assert -(-reached // plan.group) <= ELEMENTS + ELEMENTS // 2, (n_fft, hop)
    assert found == {128: 16, 256: 16, 512: 13, 1024: 7, 2048: 3}


@pytest.mark.parametrize("n_fft", [0, -2, 8194, 4097, 10**7])
def test_sizes_without_a_kernel_are_refused(n_fft):
    assert not supported(n_fft)
    with pytest.raises(ValueError, match=f"n_fft={n_fft}"):
        make_plan(n_fft)


def test_factor():
    assert factor(2 * 3 * 4 * 5 * 7 * 11 * 13) == (13, 11, 7, 5, 3, 8)
    assert factor(29 * 21) == (29, 7, 3) and factor(1) == ()
    assert factor(131) is None and factor(17 * 19) is None and factor(17 * 17) is None


def test_plans_are_cached():
    assert make_plan(1024) is make_plan(1024)
    assert make_plan.cache_info().maxsize is not None


@pytest.mark.parametrize("n_fft", [20, 1218, 321, 1024])
def test_table_parts(n_fft):
    plan = make_plan(n_fft)
    table = table_for(plan, torch.device("cpu"))
    values = torch.view_as_complex(table.values).to(torch.complex128)
    if not plan.pair:
        k = torch.arange(plan.threads if plan.mirrored else plan.points + 1, dtype=torch.float64)
        expected = torch.polar(torch.ones_like(k), -2 * math.pi * k / n_fft)
        torch.testing.assert_close(values[table.untangle_at :][: len(k)], expected, rtol=0, atol=1e-7)
    if plan.kind == "bluestein":
        n = torch.arange(plan.points, dtype=torch.float64)
        chirp = values[table.chirp_at : table.spectrum_at]
        expected = torch.polar(torch.ones_like(n), -math.pi * (n * n % (2 * plan.points)) / plan.points)
        torch.testing.assert_close(chirp, expected, rtol=0, atol=1e-7)
        kernel = torch.fft.ifft(values[table.spectrum_at :]) * plan.fft_points
        torch.testing.assert_close(kernel[: plan.points], expected.conj(), rtol=0, atol=1e-6)
