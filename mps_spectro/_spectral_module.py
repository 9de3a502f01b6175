"""The transform and its inverse with sizes, window and padding that are said once."""

from __future__ import annotations

import contextlib
import math
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import LONG_MODE_STRATEGIES, SAFETY, ArgumentError, _sizes, _tensor, choice, flag, istft_call
from ._backend import use_backend
from ._compiled import CompiledMethods
from ._coverage import tracing_reason
from ._derived import moved
from ._envelope import envelope
from ._float_buffers import FloatBuffers
from ._frontend import signal
from ._reference import PAD_MODES, full_length
from ._shown import arguments_of, shown
from .fft_params import make_window
from .istft import _by_torch, istft
from .stft import stft, transform
from .typing import CenterPadMode, CenterTailPad, ISTFTBackendPolicy, STFTOutputLayout, WindowFunction

LAYOUTS = get_args(STFTOutputLayout)
TAIL_PADS = get_args(CenterTailPad)
POLICIES = get_args(ISTFTBackendPolicy)
# what mlx-spectro calls them
_POLICY_ALIASES = {"mlx_fft": "torch"}
_STRATEGY_ALIASES = {"native": "custom", "numpy_fallback": "custom"}
STRATEGIES = (*LONG_MODE_STRATEGIES, *_STRATEGY_ALIASES)


class SpectralModule(CompiledMethods, FloatBuffers):
    """Keeps sizes, window and padding; transforms and inverts. `SpectralTransform` says what the arguments are."""

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop_length: int | None,
        win_length: int | None = None,
        window_fn: WindowFunction | str = "hann",
        *,
        window: Tensor | None = None,
        periodic: bool = True,
        center: bool = True,
        center_pad_mode: CenterPadMode = "reflect",
        center_tail_pad: CenterTailPad = "symmetric",
        normalized: bool = False,
        istft_backend_policy: ISTFTBackendPolicy | None = None,
    ) -> None:
        arguments = arguments_of(SpectralModule, locals())
        super().__init__()
        self._shown = shown(SpectralModule, arguments)
        self.n_fft, self.hop_length, self.win_length = _sizes(n_fft, hop_length, win_length)
        self.window_fn = window_fn
        self.periodic = flag("periodic", periodic)
        self.center = flag("center", center)
        self.center_pad_mode = choice("center_pad_mode", center_pad_mode, PAD_MODES)
        self.center_tail_pad = choice("center_tail_pad", center_tail_pad, TAIL_PADS)
        self.normalized = flag("normalized", normalized)
        self.istft_backend_policy = _policy(
            "istft_backend_policy", "auto" if istft_backend_policy is None else istft_backend_policy
        )
        if center_tail_pad == "minimal" and center_pad_mode != "constant":
            raise ArgumentError(
                f"center_tail_pad='minimal' must go with center_pad_mode='constant', got {center_pad_mode!r}"
            )
        self._minimal = self.center and center_tail_pad == "minimal"
        if self._minimal and self.istft_backend_policy == "torch_fallback":
            raise ArgumentError("istft_backend_policy='torch_fallback' must go with center_tail_pad='symmetric'")
        if isinstance(window, Tensor) and window.requires_grad:
            raise ArgumentError("window must not require grad; mps_spectro.stft and istft take a window that learns")
        with torch.no_grad():
            made = make_window(window, window_fn, self.win_length, self.n_fft, periodic)
        self.register_buffer("window", made, persistent=False)
        self._given = None if window is None else len(window)

    # --- transform ----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, *, output_layout: STFTOutputLayout = "bfn") -> Tensor:
        """The same as `stft`."""
        return self.stft(x, output_layout=output_layout)

    def stft(self, x: Tensor, *, output_layout: STFTOutputLayout = "bfn") -> Tensor:
        """The spectrum of a signal.

        Args:
            x: (..., T) real; half and bfloat16 are computed in float32.
            output_layout: "bfn" or "bnf".

        Returns:
            (..., F, N) or (..., N, F) complex. The bins of one frame are adjacent in memory: "bnf" is contiguous.

        Raises:
            TypeError: not a real floating point tensor.
            ValueError: unknown layout, no batch, a signal too short for its padding (reflect: T <= n_fft // 2).
        """
        choice("output_layout", output_layout, LAYOUTS)
        x = signal(x)
        length = x.shape[-1]
        if self._minimal:
            spectrum = self._framed(x, self.n_fft // 2, max(1, -(-length // self.hop_length)))
        elif self.center or length >= self.n_fft:
            spectrum = self._padded(x, self.center, self.center_pad_mode)
        else:
            spectrum = self._framed(x, 0, 1)
        return spectrum if output_layout == "bfn" else spectrum.transpose(-2, -1)

    def _padded(self, x: Tensor, center: bool, pad_mode: str) -> Tensor:
        window = self._window_for(x.dtype, x.device)
        return stft(x, self.n_fft, self.hop_length, None, window, center, pad_mode, self.normalized)

    def _framed(self, x: Tensor, offset: int, n_frames: int) -> Tensor:
        """`n_frames` frames, the first of which begins `offset` samples before the signal; zeros around it."""
        if tracing_reason() is not None:  # what such a graph may hold is for `stft` to say
            covered = full_length(self.n_fft, self.hop_length, n_frames)
            x = F.pad(x, (offset, max(0, covered - offset - x.shape[-1])))[..., :covered]
            return self._padded(x, False, "constant")
        lead = x.shape[:-1]
        rows = x if x.dim() == 2 else x.reshape(math.prod(lead), x.shape[-1])
        window = self._window_for(x.dtype, x.device)
        spectrum = transform(rows, window, self.hop_length, offset, "constant", n_frames, self.normalized, True, True)
        if len(lead) == 1:
            return spectrum
        return spectrum.unflatten(0, lead) if lead else spectrum.squeeze(0)

    # --- inverse ------------------------------------------------------------------------------------------------------

    def istft(
        self,
        z: Tensor,
        length: int | None = None,
        validate: bool = False,
        *,
        torch_like: bool = False,
        allow_fused: bool = True,
        safety: str = "auto",
        long_mode_strategy: str = "native",
        backend_policy: ISTFTBackendPolicy | None = None,
        input_layout: STFTOutputLayout = "bfn",
    ) -> Tensor:
        """The signal of a spectrum: overlap-added frames over the sum of squared windows, 0 where that is below 1e-11.

        Args:
            z: (..., F, N), or (..., N, F) with input_layout="bnf", complex, in any memory layout. n_fft bins (two
                sides) are taken as well; those beyond F do not count.
            length: samples to return, zeros (and a warning) beyond the last frame. Default: all the frames cover, less
                the padding; center_tail_pad="minimal" cannot do without.
            validate: compare the result with that of plain torch, to 1e-5 of the largest value; waits for the device.
            torch_like, safety: whether an envelope below 1e-11 is an error, as for `mps_spectro.istft`.
            allow_fused, long_mode_strategy ("native" or "custom", "torch_fallback", "numpy_fallback"): accepted for
                compatibility; every value gives the same numbers in the same way.
            backend_policy: which backend answers; None for that of the module. "auto", "metal", "cuda", "host" and
                "torch" (also called "mlx_fft") are those of `mps_spectro.use_backend`. "torch_fallback" calls
                torch.istft itself, whose own check of the envelope is always on.
            input_layout: "bfn" or "bnf".

        Returns:
            (..., length) real, contiguous.

        Raises:
            TypeError: an argument of the wrong kind, a real spectrum.
            ValueError: a value or a size that does not fit (bins in the wrong dimension among them), a policy other
                than "auto" with a long_mode_strategy other than "native", torch_fallback with minimal padding.
            RuntimeError: a backend that does not take this device, a result that `validate` finds wrong.
        """
        policy = self._istft_options(validate, torch_like, allow_fused, safety, long_mode_strategy, backend_policy)
        spectrum = self._bins_first(z, input_layout)
        if length is None and self._minimal:
            raise ArgumentError("length is required with center_tail_pad='minimal'")
        # a given window as long as a frame has no zeros around it, whatever win_length says
        reach = self._given or self.win_length
        if self.hop_length > reach:
            raise ArgumentError(
                f"hop_length must not exceed win_length={reach} in istft, got {self.hop_length}: there are gaps"
            )
        window = self._window_for(spectrum.real.dtype, spectrum.device)
        sizes = (self.n_fft, self.hop_length, None, window, self.center, self.normalized, None, length)
        checks: dict[str, Any] = {"torch_like": torch_like, "safety": safety, "allow_fused": allow_fused}
        if policy == "torch_fallback":
            call = istft_call(spectrum, *sizes, False)
            out = _by_torch(call, "backend_policy torch_fallback")
            out = out.reshape(*spectrum.shape[:-2], out.shape[-1])
        else:
            # entering one in the middle of a graph would break it
            with contextlib.nullcontext() if policy == "auto" else use_backend(policy):
                out = istft(spectrum, *sizes, **checks)
        if validate:
            self._check_against_torch(out, spectrum)
        return out

    def _istft_options(
        self,
        validate: bool,
        torch_like: bool,
        allow_fused: bool,
        safety: str,
        long_mode_strategy: str,
        backend_policy: str | None,
    ) -> str:
        """Checks what does not depend on the spectrum, and returns the policy."""
        for name, value in (("validate", validate), ("torch_like", torch_like), ("allow_fused", allow_fused)):
            flag(name, value)
        choice("safety", safety, SAFETY)
        choice("long_mode_strategy", long_mode_strategy, STRATEGIES)
        strategy = _STRATEGY_ALIASES.get(long_mode_strategy, long_mode_strategy)
        policy = self.istft_backend_policy if backend_policy is None else _policy("backend_policy", backend_policy)
        if policy != "auto" and strategy != "custom":
            raise ArgumentError(
                f"long_mode_strategy must be 'native' with backend_policy={policy!r}, got {long_mode_strategy!r}"
            )
        if self._minimal and "torch_fallback" in (policy, strategy):
            raise ArgumentError("'torch_fallback' must go with center_tail_pad='symmetric', got 'minimal'")
        return policy

    def _bins_first(self, z: Tensor, layout: str) -> Tensor:
        """The spectrum as (..., F, N), once its bins are where its layout says."""
        choice("input_layout", layout, LAYOUTS)
        _tensor("z", z)
        if not z.is_complex():
            raise TypeError(f"z must be complex, got {z.dtype}; torch.view_as_complex takes (..., 2) pairs")
        if z.dim() < 2:
            raise ArgumentError(f"z must have shape (..., F, N) or (..., N, F), got {tuple(z.shape)}")
        z = z if layout == "bfn" else z.transpose(-2, -1)
        sides = (self.n_fft // 2 + 1, self.n_fft)
        if z.shape[-2] not in sides:
            shape = tuple(z.shape if layout == "bfn" else z.transpose(-2, -1).shape)
            place, other, dims = ("second to last", "bnf", "N, F") if layout == "bfn" else ("last", "bfn", "F, N")
            raise ArgumentError(
                f"z must have {sides[0]} (or {sides[1]}) bins in its {place} dimension with input_layout={layout!r}, "
                f"got shape {shape}; input_layout={other!r} takes (..., {dims})"
            )
        return z

    def _check_against_torch(self, out: Tensor, spectrum: Tensor) -> None:
        """Refuses what is further from plain torch than 1e-5 of the larger of 1 and the largest value.

        A quotient is as inexact as its divisor is small: errors and values count with the root of the envelope.

        Raises:
            RuntimeError: it is further away.
        """
        with torch.no_grad(), use_backend("torch"):
            window = self._window_for(spectrum.real.dtype, spectrum.device)
            start = self.n_fft // 2 if self.center else 0
            reach = envelope(window, self.n_fft, self.hop_length, spectrum.shape[-1])[start:][: out.shape[-1]]
            beyond = (0, out.shape[-1] - len(reach))
            sizes = (self.n_fft, self.hop_length, None, window, self.center, self.normalized, None, len(reach))
            expected = F.pad(istft(spectrum, *sizes), beyond)
            weight = F.pad(reach, beyond, value=1.0).sqrt().clamp(max=1.0)
            apart, expected = (out - expected).abs() * weight, expected.abs() * weight
            finite = expected.isfinite()
            tolerance = 1e-5 * max(1.0, expected.masked_fill(~finite, 0.0).amax().item())
            wrong = (out.isfinite() != finite) | (finite & (apart > tolerance))
            if wrong.any():
                raise RuntimeError(
                    f"istft mismatch: {int(wrong.sum())} of {wrong.numel()} samples are further than {tolerance:.1e} "
                    f"from plain torch, the first at {tuple(wrong.nonzero()[0].tolist())}"
                )

    # --- training -----------------------------------------------------------------------------------------------------

    def differentiable_stft(self, x: Tensor) -> Tensor:
        """`stft` in layout "bnf": (..., T) to (..., N, F)."""
        return self.stft(x, output_layout="bnf")

    def differentiable_istft(self, z: Tensor, *, length: int | None = None) -> Tensor:
        """`istft` of layout "bnf": (..., N, F) to (..., length)."""
        return self.istft(z, length, input_layout="bnf")

    # --- module -------------------------------------------------------------------------------------------------------

    def _window_for(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return moved(self.window, torch.float64 if dtype == torch.float64 else torch.float32, device)

    def extra_repr(self) -> str:
        return self._shown


def _policy(name: str, value: str) -> str:
    choice(name, value, POLICIES)
    return _POLICY_ALIASES.get(value, value)
