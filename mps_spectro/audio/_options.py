"""Checks the arguments that reading and writing share."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._arguments import ArgumentError, choice, flag, integer

LAYOUTS = ("channels_last", "channels_first")
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
# soxr's recipes; HQ is its default and librosa's
QUALITIES = {"default": "HQ", "fastest": "QQ", "low": "LQ", "medium": "MQ", "high": "HQ", "best": "VHQ"}


class Output(NamedTuple):
    """How the samples of a file are wanted."""

    sr: int | None
    mono: bool
    layout: str
    dtype: torch.dtype
    quality: str
    device: torch.device | str | None

    @property
    def decoded(self) -> str:
        """The dtype that decoding and resampling work in."""
        return "float64" if self.dtype == torch.float64 else "float32"

    def tensor(self, samples: Any) -> Tensor:
        """The numpy array (frames, channels) as what the caller asked for."""
        result = torch.from_numpy(samples)
        if self.layout == "channels_first":
            result = result.T
        return result.to(self.device, self.dtype).contiguous()


def output(sr: Any, mono: Any, layout: Any, dtype: Any, quality: Any, device: Any) -> Output:
    """Checks the arguments of the same names; see `load`."""
    return Output(
        None if sr is None else rate(sr),
        flag("mono", mono),
        choice("layout", layout, LAYOUTS),
        _dtype(dtype),
        QUALITIES[choice("resample_quality", quality, tuple(QUALITIES))],
        device,
    )


def rate(sr: Any) -> int:
    """A sample rate in Hz."""
    return positive("sr", sr)


def positive(name: str, value: Any) -> int:
    """An int above 0."""
    value = integer(name, value)
    if value <= 0:
        raise ArgumentError(f"{name} must be positive, got {value}")
    return value


def seconds(name: str, value: Any) -> float:
    """A time of zero or more, in seconds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, got {value!r} ({type(value).__name__})")
    value = float(value)
    if not 0.0 <= value < math.inf:
        raise ArgumentError(f"{name} must be finite and not negative, got {value}")
    return value


def file_path(path: Any) -> str:
    """The path as a str."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    return os.fsdecode(path)


def _dtype(dtype: Any) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ArgumentError(f"dtype must be one of {', '.join(DTYPES)} or the torch dtype of that name, got {dtype!r}")
