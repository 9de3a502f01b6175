"""The texts that the launches of one size compile, without compiling them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from unittest import mock

import torch
from fences import forget_launches

from mps_spectro import _band_kernels, _kernels
from mps_spectro._bands_reference import MODES, BandsArguments
from mps_spectro._runtime.source import assemble

KERNELS = ("analysis", "synthesis", "abreast", "bands", "gains")
POWERS = (2.0, 1.0, 1.5)


def _bind_all(n_fft: int, hop: int) -> None:
    """Launches of every kernel, for signals whose samples are pairs or not and every order of a spectrum."""
    cpu, frames, bins = torch.device("cpu"), 7, n_fft // 2 + 1
    length = n_fft + (frames - 1) * hop
    length += length % 2
    signals = [((2, length), (length, 1), True), ((2, length), (2 * length, 2), False)]
    place = (n_fft, hop, n_fft // 2, "constant")
    for signal in signals:
        _kernels.bind_analysis("host", cpu, *signal, None, *place, frames, 1.0, False)
    for strides in ((frames * bins, 1, bins), (frames * bins, frames, 1), (4 * frames * bins, 2, 2 * bins)):
        for few in (0, 10**6):
            with mock.patch.object(_kernels, "_FEW_BLOCKS", few):
                _kernels.bind_synthesis("host", cpu, (2, frames), strides, True, None, *place, length, 1.0, False)
    for name in ("bands", "gains"):
        for number, mode in enumerate(MODES):
            power, signal = POWERS[number % len(POWERS)], signals[number % len(signals)]
            rest = BandsArguments(*place, frames, 1.0, power, 0.0, False, mode, 1.0, 1.0)
            _band_kernels._bind("host", name, cpu, *signal, 5, True, 2, rest)


def sources(n_fft: int, hop: int) -> dict[str, list[str]]:
    """By kernel, the texts of each of its variants."""
    found: dict[str, list[str]] = defaultdict(list)

    class Library:
        def __init__(self, shader: str, defines: tuple[tuple[str, int], ...]) -> None:
            self.text = assemble(shader, defines)

        def __getattr__(self, kernel: str) -> Any:
            if self.text not in found[kernel]:
                found[kernel].append(self.text)
            return object()

    forget_launches()
    try:
        with mock.patch.object(_kernels, "library", lambda backend, shader, defines, device: Library(shader, defines)):
            _bind_all(n_fft, hop)
    finally:
        forget_launches()
    return found
