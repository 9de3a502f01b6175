"""What the mel modules share: arguments, buffers, presets."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from ._arguments import ArgumentError
from ._compiled import CompiledMethods
from ._float_buffers import FloatBuffers, own
from ._frontend import Output, Spectrum, output, run, spectrum
from ._shown import shown
from ._window_functions import stand_in, window_for
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


class MelModule(CompiledMethods, FloatBuffers):
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
        window_fn = arguments["window_fn"]
        like = stand_in(window_fn)
        window = window_for(window_fn, like, self._spectrum.win_length, periodic)
        self.register_buffer("window", own(window), persistent=False)
        if mel_basis is None:
            names = ("f_min", "f_max", "n_mels", "sample_rate", "norm", "mel_scale")
            shape = (n_fft // 2 + 1, *(arguments[name] for name in names))
            mel_basis = melscale_fbanks(*shape, convention=arguments["convention"], n_fft=n_fft, device=like.device)
        if isinstance(mel_basis, nn.Parameter):
            self.mel_basis = mel_basis
        else:
            self.register_buffer("mel_basis", mel_basis, persistent=False)

    def _remember(self, arguments: dict[str, Any]) -> None:
        """Keeps the arguments as attributes, those of the outermost class in the end."""
        self._arguments = dict(arguments)
        for name, value in arguments.items():
            if not isinstance(value, Tensor):
                setattr(self, name, value)

    def _output_for(self, output_scale: str) -> Output:
        given = self._arguments
        return output(output_scale, **{name: given[name] for name in _OF_OUTPUT if name in given})

    def _powers(self, x: Tensor) -> Tensor:
        return run(x, self.window, None, self._spectrum, Output())

    def extra_repr(self) -> str:
        return shown(type(self), self._arguments)

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
