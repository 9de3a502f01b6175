"""Synthesis both ways, slots together on an item and each on its own, at the edges of frames, items and steps.

Against the op in float64, between guard bands. Rows are cut as for devices of different sizes: into one item, or into
items of one step of the kernel, or of a few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import pytest
import torch
from conftest import require_route
from fences import fenced_kernels, forget_launches
from parity_cases import largest_error
from torch import Tensor

from mps_spectro import _kernels, _reference, use_backend
from mps_spectro._envelope import reciprocal_envelope
from mps_spectro._plan import abreast, make_plan, segments

# n_fft, hop and way. Hops of whole rows of the last pass: dense, with a rest of rows, and frames side by side
SHAPES = [
    (128, 16, "together"),
    (128, 48, "together"),
    (256, 256, "together"),
    (512, 128, "together"),
    (1024, 128, "together"),
    (2048, 512, "together"),
    (400, 160, "alone"),
    (1024, 128, "alone"),
    (2048, 512, "alone"),
]
OTHER_SHAPES = [
    (n_fft, hop, way)
    for n_fft in (128, 256, 400, 512, 1024, 2048)
    for hop in range(1, n_fft + 1)
    if segments(make_plan(n_fft, "synthesis"), hop)
    for way in ("together", "alone")
    if (n_fft, way) != (400, "together") and (n_fft, hop, way) not in SHAPES
]
# groups that the device runs at a time, and steps and hops that an item is meant to have
CUTS = {"one item": (1, 10**6), "items of one step": (10**6, 48), "items of some steps": (1, 1)}


@dataclass(frozen=True)
class Edges:
    """What is kept of the frames' sum: `length` samples after the first `offset`."""

    length: int
    offset: int = 0
    pad_mode: str = "constant"
    envelope: bool = False
    hermitian: bool = False


def edges(n_fft: int, hop: int, frames: int) -> list[Edges]:
    half, whole = n_fft // 2, (frames - 1) * hop + n_fft
    # the signal whose frames these are, and up to a hop more that no frame reaches
    signal = max(half + 1, (frames - 1) * hop + frames % hop)
    return [
        Edges(whole),
        Edges(whole - hop // 2 - frames % 2, envelope=True),
        Edges(whole + hop + 3, envelope=frames % 3 == 0),
        Edges(max(1, whole - n_fft), half, envelope=True, hermitian=True),
        Edges(whole - half, half, hermitian=True),
        Edges(max(2, whole - n_fft), half - 1),
        Edges(signal, half, "reflect"),
        Edges(signal + hop - frames % hop, half, "reflect", envelope=True),
        Edges(signal, half, "circular"),
    ]


def every_second(spec: Tensor) -> Tensor:
    doubled = torch.full((*spec.shape[:2], 2 * spec.shape[2], 2), float("nan"))
    doubled[:, :, ::2] = spec
    return doubled[:, :, ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "bins adjacent": lambda spec: spec.transpose(1, 2).contiguous().transpose(1, 2),
    "frames adjacent": lambda spec: spec.contiguous(),
    "neither": every_second,
}


class Watch:
    """The kernels that were prepared, and items in a row and hops of an item of every launch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernels: set[str] = set()
        self.items: set[tuple[int, int]] = set()
        prepare, items = _kernels._prepare, _kernels._items

        def watched_prepare(backend: str, name: str, *rest: Any) -> Any:
            self.kernels.add(name)
            return prepare(backend, name, *rest)

        def watched_items(*arguments: int) -> tuple[int, int]:
            self.items.add(items(*arguments))
            return items(*arguments)

        monkeypatch.setattr(_kernels, "_prepare", watched_prepare)
        monkeypatch.setattr(_kernels, "_items", watched_items)


def check_edges(n_fft: int, hop: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_route("host")
    alone = make_plan(n_fft, "synthesis")
    together = abreast(alone, True)
    if way == "alone":
        monkeypatch.setattr(_kernels, "abreast", lambda plan, frames_contiguous: None)
    plan = together or alone
    watch = Watch(monkeypatch)
    window = torch.rand(n_fft) + 0.5
    work = []
    for frames in range(1, 2 * plan.slots + 4):
        batch = 1 + frames % 3
        spec = torch.randn(batch, n_fft // 2 + 1, frames, 2)
        found = edges(n_fft, hop, frames)
        # every count of frames with some of the edges, every edge with many counts
        for number in range(frames % 3, len(found), 3):
            edge = found[number]
            env = reciprocal_envelope(window, n_fft, hop, frames) if edge.envelope else None
            rest = (n_fft, hop, edge.offset, edge.pad_mode, edge.length, 0.7, edge.hermitian)
            wide = [tensor if tensor is None else tensor.double() for tensor in (spec, window, env)]
            work.append((frames, edge, (spec, window, env), rest, _reference.synthesis(*wide, *rest)))
    for cut, (groups, steps) in CUTS.items():
        monkeypatch.setattr(_kernels, "_capacity", lambda backend, device, plan, kernel, n=groups: n * plan.slots)
        monkeypatch.setattr(_kernels, "_ITEM_STEPS", steps)
        monkeypatch.setattr(_kernels, "_ITEM_BLOCKS", steps)
        with use_backend("host"), fenced_kernels() as counts:
            for frames, edge, (spec, window, env), rest, expected in work:
                for layout, laid_out in LAYOUTS.items():
                    got = torch.ops.mps_spectro.synthesis(laid_out(spec), window, env, *rest)
                    error = largest_error(got, expected)
                    assert error < 1e-6, (frames, edge, layout, cut, error)
        assert counts["launches"] == len(work) * len(LAYOUTS)
    assert watch.kernels == {"abreast" if way == "together" else "synthesis"}
    halo = -(-n_fft // hop) - 1
    pace = plan.slots if way == "together" else 1
    seen = {(min(2, items), min(2, -(-(hops + halo) // pace))) for items, hops in watch.items}
    assert seen >= {(1, 2), (2, 2)} | ({(2, 1)} if pace > halo else set())


@pytest.mark.parametrize(("n_fft", "hop", "way"), SHAPES)
def test_every_number_of_frames_and_edge(n_fft: int, hop: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_edges(n_fft, hop, way, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("n_fft", "hop", "way"), OTHER_SHAPES)
def test_every_hop(n_fft: int, hop: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_edges(n_fft, hop, way, monkeypatch)


@pytest.mark.parametrize("contiguous", [True, False])
def test_which_way_is_taken(contiguous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together where frames lie side by side, where there is little to do, and where a frame takes few threads."""
    require_route("host")
    forget_launches()
    watch = Watch(monkeypatch)
    taken = {}
    for n_fft in (256, 1024, 4096):
        for few in (True, False):
            monkeypatch.setattr(_kernels, "_FEW_BLOCKS", 10**6 if few else 0)
            watch.kernels.clear()
            spec = torch.randn(2, n_fft // 2 + 1, 9, 2)
            spec = LAYOUTS["frames adjacent" if contiguous else "bins adjacent"](spec)
            arguments = (n_fft, n_fft // 4, 0, "constant", 2 * n_fft, 1.0, False)
            with use_backend("host"):
                torch.ops.mps_spectro.synthesis(spec, torch.ones(n_fft), None, *arguments)
            forget_launches()
            (taken[n_fft, few],) = watch.kernels
    assert {taken[256, True], taken[256, False], taken[1024, True]} == {"abreast"}
    assert taken[1024, False] == ("abreast" if contiguous else "synthesis")
    assert {taken[4096, True], taken[4096, False]} == {"synthesis"}  # no three of its frames fit
