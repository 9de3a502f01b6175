"""The transform and its inverse as one module, eager and compiled."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Sequence

import torch
from torch import Tensor

from ._arguments import ArgumentError, choice, integer
from ._backend import use_backend
from ._cache import BoundedCache
from ._coverage import traced
from ._envelope import nola_holds
from ._reference import full_length
from ._spectral_module import LAYOUTS, SpectralModule
from .typing import CenterPadMode, CenterTailPad, ISTFTBackendPolicy, STFTOutputLayout, WindowFunction

Compiled = Callable[[Tensor], Tensor]
Compiler = str | Callable[..., Any]

_transforms: BoundedCache[SpectralTransform] = BoundedCache("transforms", 64)


class SpectralTransform(SpectralModule):
    """Short-time Fourier transform and its inverse with fixed sizes, window and padding.

    `stft`, `istft` and their names for training (`differentiable_stft`, `differentiable_istft`) are differentiable to
    any order. Signals are (..., T), spectra (..., F, N) in layout "bfn" or (..., N, F) in "bnf", with
    F = n_fft // 2 + 1. Neither layout costs a copy, in either direction.

    The window is a buffer that is not in the state dict. It moves with the module, stays in float32 when that is cast
    to half, and follows the dtype and device of the signal where they differ.

    Compiled functions are made once for the same options (the 64 sets used last are kept) and give the values of the
    methods they are made of. Compilation takes about a second at the first call, and again for another kind of input,
    so it pays for what repeats. `backend` is torch.compile's; "aot_eager", the default, needs no compiler on the
    machine.

    N, the number of frames, by padding:

    | center | pad mode | tail pad | samples before and after the signal | N |
    |---|---|---|---|---|
    | False | | | none; zeros up to n_fft behind a shorter signal | max(1, (T - n_fft) // hop_length + 1) |
    | True | any | symmetric | n_fft // 2 each | (T + 2 * (n_fft // 2) - n_fft) // hop_length + 1 |
    | True | constant | minimal | n_fft // 2, and what N frames need | max(1, ceil(T / hop_length)) |

    Args:
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames; None for n_fft // 4.
        win_length: samples of the window, centred in n_fft; default n_fft.
        window_fn: a name ("hann", "hamming", "rect", or any in torch.signal.windows), or a function of win_length,
            periodic=, dtype= and device= (or of win_length alone).
        window: 1-D of win_length or n_fft samples in place of `window_fn`; it is copied.
        periodic: False for a symmetric window.
        center: pad, so that frame m is centred at sample m * hop_length.
        center_pad_mode: "reflect", "constant", "replicate" or "circular".
        center_tail_pad: "symmetric", or with center_pad_mode="constant" "minimal".
        normalized: spectra are multiplied by n_fft ** -0.5.
        istft_backend_policy: default of `backend_policy` in `istft`; None for "auto".

    Attributes:
        window: (n_fft,), the window with the zeros around it.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a size or a name that does not fit, a window that requires grad (`mps_spectro.stft` takes those).
    """

    def get_compiled_stft(
        self, *, output_layout: STFTOutputLayout = "bfn", backend: Compiler = "aot_eager"
    ) -> Compiled:
        """`stft` compiled, a function of x."""
        choice("output_layout", output_layout, LAYOUTS)
        return self._compiled_method("stft", backend, output_layout=output_layout)

    def stft_compiled(
        self, x: Tensor, *, output_layout: STFTOutputLayout = "bfn", backend: Compiler = "aot_eager"
    ) -> Tensor:
        """`stft` of x by its compiled function."""
        return self.get_compiled_stft(output_layout=output_layout, backend=backend)(x)

    def get_compiled_istft(
        self,
        *,
        length: int | None = None,
        validate: bool = False,
        torch_like: bool = False,
        allow_fused: bool = True,
        safety: str = "auto",
        long_mode_strategy: str = "native",
        backend_policy: ISTFTBackendPolicy | None = None,
        input_layout: STFTOutputLayout = "bfn",
        backend: Compiler = "aot_eager",
    ) -> Compiled:
        """`istft` compiled, a function of z.

        What a graph cannot hold (the choice of a backend, `validate`, the errors of `torch_like` and `safety`) happens
        around it.

        Raises:
            ValueError: backend_policy "torch_fallback", a long_mode_strategy other than "native"; as for `istft`.
        """
        policy = self._istft_options(validate, torch_like, allow_fused, safety, long_mode_strategy, backend_policy)
        if policy == "torch_fallback" or long_mode_strategy not in ("native", "custom"):
            raise ArgumentError(
                f"compiled istft must have long_mode_strategy 'native' and no backend_policy 'torch_fallback', got "
                f"{long_mode_strategy!r} and {policy!r}"
            )
        if length is not None and integer("length", length) <= 0:
            raise ArgumentError(f"length must be positive, got {length}")
        choice("input_layout", input_layout, LAYOUTS)
        options = {"length": length, "input_layout": input_layout, "allow_fused": allow_fused}
        inner: Compiled = self._compiled_method("istft", backend, backend_policy="auto", **options)
        must_hold = safety == "always" or (torch_like and safety != "off")
        if policy == "auto" and not (must_hold or validate):
            return inner

        def around(z: Tensor) -> Tensor:
            spectrum = self._bins_first(z, input_layout)
            if must_hold:
                self._require_envelope(spectrum, length)
            with contextlib.nullcontext() if policy == "auto" else use_backend(policy):
                out = inner(z)
            if validate:
                self._check_against_torch(out, spectrum)
            return out

        key = ("istft around", backend, length, input_layout, allow_fused, policy, must_hold, validate)
        return self._compiled_once(key, lambda: around)

    def _require_envelope(self, spectrum: Tensor, length: int | None) -> None:
        n_frames, offset = spectrum.shape[-1], self.n_fft // 2 if self.center else 0
        stop = full_length(self.n_fft, self.hop_length, n_frames) - offset if length is None else offset + length
        window = self._window_for(spectrum.real.dtype, spectrum.device)
        if not nola_holds(window, self.n_fft, self.hop_length, n_frames, offset, stop):
            raise ArgumentError(
                "window overlap add min is below 1e-11, which torch_like=True and safety='always' do not allow"
            )

    def istft_compiled(self, z: Tensor, *, backend: Compiler = "aot_eager", **options: Any) -> Tensor:
        """`istft` of z by its compiled function; `options` are those of `get_compiled_istft`."""
        return self.get_compiled_istft(backend=backend, **options)(z)

    def compiled_pair(
        self,
        *,
        length: int,
        layout: STFTOutputLayout = "bnf",
        warmup_batch: int | None = None,
        backend: Compiler = "aot_eager",
    ) -> tuple[Compiled, Compiled]:
        """`get_compiled_stft` and `get_compiled_istft` for signals of `length` samples, spectra in `layout`.

        One pass without compilation comes first, so that sizes that do not fit raise here.

        Args:
            warmup_batch: compile both now, for this many signals.
        """
        forward = self.get_compiled_stft(output_layout=layout, backend=backend)
        inverse = self.get_compiled_istft(length=length, input_layout=layout, backend=backend)
        self.warmup(1, length)
        if warmup_batch is not None:
            inverse(forward(self._example(warmup_batch, length)))
        return forward, inverse

    def compiled_pair_nd(
        self,
        *,
        length: int,
        leading_shape: Sequence[int],
        layout: STFTOutputLayout = "bnf",
        backend: Compiler = "aot_eager",
    ) -> tuple[Compiled, Compiled]:
        """`compiled_pair` for signals (*leading_shape, length), the same pair each time; other shapes are refused.

        Raises:
            ValueError: an empty leading_shape, a dimension below 1.
        """
        lead = tuple(integer("leading_shape", size) for size in leading_shape)
        if not lead or min(lead) < 1:
            raise ArgumentError(f"leading_shape must be one or more positive ints, got {lead}")

        def make() -> tuple[Compiled, Compiled]:
            forward, inverse = self.compiled_pair(length=length, layout=layout, backend=backend)
            return _for_lead(forward, "x", lead, 1), _for_lead(inverse, "z", lead, 2)

        return self._compiled_once(("pair", backend, length, lead, layout), make)

    # --- first calls --------------------------------------------------------------------------------------------------

    def _example(self, batch: int, length: int) -> Tensor:
        if integer("batch", batch) < 1 or integer("length", length) < 1:
            raise ArgumentError(f"batch and length must be positive, got {batch} and {length}")
        # no random numbers: nobody expects a warm-up to change the generator
        return torch.linspace(-1.0, 1.0, length, dtype=self.window.dtype, device=self.window.device).repeat(batch, 1)

    def warmup(self, batch: int = 1, length: int = 4096) -> None:
        """Runs `stft` and `istft` once on the device of the module, so that tables and shaders are there."""
        with torch.no_grad():
            self.istft(self.stft(self._example(batch, length)), length)

    def prewarm_kernels(self, batch: int = 1, length: int | None = None) -> None:
        """Runs `stft` and `istft` forward and backward on the device of the module: everything that training compiles.

        Args:
            length: default the larger of 2 * n_fft and 4096.
        """
        length = self._length(length)
        self.warmup(batch, length)
        with torch.inference_mode(False), torch.enable_grad():
            x = self._example(batch, length).requires_grad_()
            torch.autograd.grad(self.istft(self.stft(x), length).sum(), x)

    def prewarm_compiled(
        self,
        *,
        batch: int = 1,
        length: int | None = None,
        validate: bool = False,
        torch_like: bool = False,
        allow_fused: bool = True,
        safety: str = "off",
        backend_policy: ISTFTBackendPolicy | None = None,
        backend: Compiler = "aot_eager",
    ) -> None:
        """Compiles `stft` and `istft`, layout "bfn", for signals (batch, length) that do not require grad."""
        length = self._length(length)
        forward = self.get_compiled_stft(backend=backend)
        inverse = self.get_compiled_istft(
            length=length,
            validate=validate,
            torch_like=torch_like,
            allow_fused=allow_fused,
            safety=safety,
            backend_policy=backend_policy,
            backend=backend,
        )
        inverse(forward(self._example(batch, length)))

    def _length(self, length: int | None) -> int:
        return max(2 * self.n_fft, 4096) if length is None else length


def _for_lead(function: Compiled, name: str, lead: tuple[int, ...], last: int) -> Compiled:
    def checked(tensor: Tensor) -> Tensor:
        if tensor.shape[:-last] != lead or tensor.dim() != len(lead) + last:
            raise ArgumentError(f"{name} must have leading_shape {lead}, got shape {tuple(tensor.shape)}")
        return function(tensor)

    return checked


def get_transform(
    *,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None = None,
    window_fn: WindowFunction | str = "hann",
    periodic: bool = True,
    center: bool = True,
    normalized: bool = False,
    window: Tensor | None = None,
    center_pad_mode: CenterPadMode = "reflect",
    center_tail_pad: CenterTailPad = "symmetric",
    istft_backend_policy: ISTFTBackendPolicy | None = None,
) -> SpectralTransform:
    """A `SpectralTransform` of these arguments, the same one each time, in whatever thread.

    The 64 used last are kept. One with a `window` is made anew at each call.

    Args:
        All as for `SpectralTransform`.
    """
    sizes = (n_fft, hop_length, win_length, window_fn)
    options: dict[str, Any] = {"periodic": periodic, "center": center, "center_pad_mode": center_pad_mode}
    options.update(center_tail_pad=center_tail_pad, normalized=normalized, istft_backend_policy=istft_backend_policy)
    if window is not None or traced():  # the tensors of a tracer must not reach others
        return SpectralTransform(*sizes, window=window, **options)
    return _transforms.get((*sizes, *options.values()), lambda: SpectralTransform(*sizes, **options))
