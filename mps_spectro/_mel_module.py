"""What the mel modules share: arguments, buffers, presets."""

from __future__ import annotations

import inspect
from typing import Any, Callable, TypeVar

import torch
from torch import Tensor, nn

from ._arguments import HALVES, ArgumentError
from ._frontend import Output, Spectrum, output, run, spectrum
from ._window_functions import make_window
from .filters import melscale_fbanks
from .presets import PRESETS

T = TypeVar("T", bound="MelModule")

_OF_SPECTRUM = (
    "center", "pad_mode", "padding", "center_tail_pad", "drop_last_frame", "pad", "preemphasis", "power",
    "magnitude_eps", "use_mps_kernels",
)  # fmt: skip
_OF_OUTPUT = (
    "power", "log_amin", "log_mode", "log_scale", "top_db", "mode", "log_base", "dynamic_range", "affine", "normalize",
)  # fmt: skip


class MelModule(nn.Module):
    """Keeps the arguments as attributes, the window and the bank as buffers."""

    window: Tensor
    mel_basis: Tensor

    def __init__(self, *, mel_basis: Tensor | None = None, **arguments: Any) -> None:
        super().__init__()
        self._remember(arguments)
        n_fft, periodic = arguments["n_fft"], arguments["periodic"]
        self._spectrum: Spectrum = spectrum(
            n_fft,
            arguments["hop_length"],
            arguments["win_length"],
            arguments["normalized"],
            **{name: arguments[name] for name in _OF_SPECTRUM if name in arguments},
        )
        self._output: Output = self._output_for(arguments["output_scale"])
        window = make_window(arguments["window_fn"], self._spectrum.win_length, periodic, torch.float32, "cpu")
        # the window may be one that others share
        self.register_buffer("window", window.clone(), persistent=False)
        if mel_basis is None:
            names = ("f_min", "f_max", "n_mels", "sample_rate", "norm", "mel_scale")
            shape = (n_fft // 2 + 1, *(arguments[name] for name in names))
            mel_basis = melscale_fbanks(*shape, convention=arguments["convention"], n_fft=n_fft)
        if isinstance(mel_basis, nn.Parameter):
            self.mel_basis = mel_basis
        else:
            self.register_buffer("mel_basis", mel_basis, persistent=False)

    def _remember(self, arguments: dict[str, Any]) -> None:
        """Keeps the arguments as attributes, those of the outermost class in the end."""
        self._arguments = dict(arguments)
        for name, value in arguments.items():
            setattr(self, name, value)

    def _output_for(self, output_scale: str) -> Output:
        given = self._arguments
        return output(output_scale, **{name: given[name] for name in _OF_OUTPUT if name in given})

    def _powers(self, x: Tensor) -> Tensor:
        return run(x, self.window, None, self._spectrum, Output())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MelModule:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype in HALVES:
                # half a window's digits would show in the result, which is computed in float32 anyway
                self._buffers[name] = kept[name].to(buffer.device)  # type: ignore[union-attr]
        return self

    def extra_repr(self) -> str:
        defaults: dict[str, inspect.Parameter] = {}
        for base in reversed(type(self).__mro__):
            if issubclass(base, MelModule):
                defaults.update(inspect.signature(base.__init__).parameters)
        shown = []
        for name, value in self._arguments.items():
            default = defaults[name].default
            if value is not default and value != default:
                shown.append(f"{name}={getattr(value, '__name__', None) or repr(value)}")
        return ", ".join(shown)

    @classmethod
    def preset(cls: type[T], name: str, **overrides: Any) -> T:
        """The front end of a well-known project, number for number.

        Args:
            name: a key of `mps_spectro.presets.PRESETS`, where the source of each is named.
            overrides: arguments that differ, `n_mels=128` for instance.

        Raises:
            ValueError: unknown name.
        """
        if name not in PRESETS:
            raise ArgumentError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls._of_preset({**PRESETS[name].arguments, **overrides})

    @classmethod
    def _of_preset(cls: type[T], arguments: dict[str, Any]) -> T:
        return cls(**arguments)
