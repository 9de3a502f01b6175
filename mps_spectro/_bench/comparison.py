"""What every kind of row has: contenders, the work of each, and how far each is from float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Mapping

import torch
from torch import Tensor

from .cases import Case

ON_THE_HOST = ("librosa",)  # contenders that compute on the CPU whatever the device: only their wall time says anything

Results = tuple[Tensor, ...]
Work = Callable[[], Results]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Comparison:
    """A row made ready.

    `makers` gives the work of each contender, in the order of the report, "ours" last; one that cannot take part raises
    a RuntimeError, from its maker or from its work. `reference` gives the measure of errors, computed on a device that
    has float64. `notes` says what a contender is where its name does not.
    """

    makers: Mapping[str, Callable[[], Work]]
    reference: Callable[[torch.device], Callable[[Results], float]]
    notes: Mapping[str, str] = field(default_factory=dict)


def noise(case: Case, device: torch.device) -> Tensor:
    return random((case.batch, case.length), device)


def random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.empty(shape, device=device).normal_(generator=torch.Generator(device).manual_seed(1))


def differentiated(function: Function, leaf: Tensor, grad: Tensor | None) -> Work:
    """Forward and backward: the output and the gradient."""
    leaf = leaf.detach().requires_grad_()

    def work() -> Results:
        out = function(leaf)
        return out.detach(), *torch.autograd.grad(out, leaf, grad)

    return work


def largest_error(got: Results, exact: Results) -> float:
    """The largest difference over the first rows, relative to the largest value; of all results, the worst."""
    worst = 0.0
    for one, wide in zip(got, exact):
        apart = one[: wide.shape[0]].to(wide.device).to(wide.dtype) - wide
        relative = (apart.abs().max() / wide.abs().max()).item()
        worst = relative if not relative <= worst else worst  # NaN wins
    return worst
