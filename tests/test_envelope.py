"""Envelope tables and NOLA verdicts: right for every size, kept exactly as long as the window is what it was."""

from __future__ import annotations

import gc
import itertools
from array import array

import pytest
import torch
from conftest import Route
from threads import in_threads
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from mps_spectro import _derived, _envelope, _reference
from mps_spectro._cache import clear_caches
from mps_spectro._envelope import envelope, nola_holds, reciprocal_envelope

SIZES = list(itertools.product((1, 2, 5, 8, 33), (1, 2, 3, 7, 40), (1, 2, 3, 5, 9, 60)))


def plain_envelope(window: Tensor, n_fft: int, hop: int, n_frames: int) -> Tensor:
    left = (n_fft - len(window)) // 2
    total = torch.zeros(_reference.full_length(n_fft, hop, n_frames), dtype=torch.float64)
    for frame in range(n_frames):
        total[frame * hop + left : frame * hop + left + len(window)] += window.cpu().double() ** 2
    return total


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every table that is computed, from empty caches."""
    clear_caches()
    counted: list[int] = []
    table = _envelope._table

    def counting(window: Tensor, *shape: int) -> Tensor:
        counted.append(len(window))
        return table(window, *shape)

    monkeypatch.setattr(_envelope, "_table", counting)
    return counted


def test_envelope_and_its_reciprocal() -> None:
    for n_fft, hop, n_frames in SIZES:
        window = torch.rand(max(1, n_fft - 3), dtype=torch.float64) * (torch.rand(max(1, n_fft - 3)) > 0.2)
        expected = plain_envelope(window, n_fft, hop, n_frames)
        torch.testing.assert_close(envelope(window, n_fft, hop, n_frames), expected)
        table = reciprocal_envelope(window, n_fft, hop, n_frames)
        assert len(table) == min(len(expected), 2 * n_fft + hop)
        dense = _reference.dense_gain(table, n_fft, hop, n_frames)
        torch.testing.assert_close(dense, torch.where(expected < 1e-11, 0.0, 1 / expected))


def test_every_device(route: Route) -> None:
    for n_fft, hop, n_frames in ((16, 4, 3), (16, 4, 50), (15, 4, 50), (8, 20, 9)):
        window = torch.hann_window(n_fft).to(route.device)
        table = reciprocal_envelope(window, n_fft, hop, n_frames)
        assert (table.device, table.dtype) == (window.device, torch.float32)
        got = _reference.dense_gain(table.cpu(), n_fft, hop, n_frames)
        expected = plain_envelope(window, n_fft, hop, n_frames)
        torch.testing.assert_close(got, torch.where(expected < 1e-11, 0.0, 1 / expected).float(), rtol=1e-5, atol=0)
        assert not nola_holds(window, n_fft, hop, n_frames, 0, len(expected))
        if hop < n_fft:
            assert nola_holds(window, n_fft, hop, n_frames, n_fft // 2, len(expected) - n_fft // 2)


def test_envelope_keeps_the_precision_of_float64() -> None:
    window = torch.hann_window(400)
    expected = plain_envelope(window, 400, 160, 20)
    got = reciprocal_envelope(window, 400, 160, 20, torch.float64)
    torch.testing.assert_close(got[300], 1 / expected[300], rtol=1e-15, atol=0)
    assert reciprocal_envelope(window, 400, 160, 20).dtype == torch.float32


@pytest.mark.parametrize("n_frames", [1, 3, 12])
def test_envelope_is_differentiable(n_frames: int) -> None:
    window = torch.rand(6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda w: envelope(w, 8, 3, n_frames), window, check_forward_ad=True)
    assert gradgradcheck(lambda w: envelope(w, 8, 3, n_frames), window)


def test_verdict_on_every_span() -> None:
    for n_fft, hop, n_frames in SIZES:
        window = torch.rand(n_fft) * (torch.rand(n_fft) > 0.4)
        expected = plain_envelope(window, n_fft, hop, n_frames)
        ends = sorted(
            {0, 1, n_fft // 2, n_fft, n_fft + 1, len(expected) - n_fft, len(expected) - 1, len(expected), 999}
        )
        for start, stop in itertools.combinations([end for end in ends if end >= 0], 2):
            if start < len(expected):
                holds = bool((expected[start:stop] >= 1e-11).all())
                assert nola_holds(window, n_fft, hop, n_frames, start, stop) == holds, (
                    n_fft,
                    hop,
                    n_frames,
                    start,
                    stop,
                )


@pytest.mark.parametrize("center", [True, False])
def test_verdict_is_torch_istft(center: bool) -> None:
    for n_fft, hop, n_frames in ((8, 2, 12), (8, 8, 12), (9, 3, 3), (16, 5, 20)):
        for window in (torch.hann_window(n_fft), torch.ones(n_fft), torch.hann_window(n_fft, periodic=False)):
            full_length = _reference.full_length(n_fft, hop, n_frames)
            start, stop = (n_fft // 2, full_length - n_fft // 2) if center else (0, full_length)
            spec = torch.ones(n_fft // 2 + 1, n_frames, dtype=torch.complex64)
            try:
                torch.istft(spec, n_fft, hop, window=window, center=center)
                holds = True
            except RuntimeError as error:
                assert "window overlap add min" in str(error)
                holds = False
            assert nola_holds(window, n_fft, hop, n_frames, start, stop) == holds, (n_fft, hop, n_frames, window)


def test_long_signals_of_any_length_share_one_table(builds: list[int]) -> None:
    window = torch.hann_window(16)
    for n_frames in range(20, 200, 7):
        reciprocal_envelope(window, 16, 4, n_frames)
    assert len(builds) == 1
    for n_frames in range(20, 200, 7):
        assert nola_holds(window, 16, 4, n_frames, 8, 4 * n_frames)
    assert len(builds) == 2


def test_window_changed_in_place_is_another_window(builds: list[int]) -> None:
    window = torch.ones(16)
    before = reciprocal_envelope(window, 16, 4, 30)
    assert nola_holds(window, 16, 4, 30, 0, 100)
    window[0] = 0.0
    assert not nola_holds(window, 16, 4, 30, 0, 100)
    assert reciprocal_envelope(window, 16, 4, 30)[0] == 0.0 and before[0] == 1.0
    window.mul_(0)
    assert not reciprocal_envelope(window, 16, 4, 30).any()


def test_parameter_given_other_data_is_another_window() -> None:
    window = torch.nn.Parameter(torch.ones(16))
    assert nola_holds(window, 16, 4, 30, 0, 100)
    window.data = torch.zeros(16)
    assert not nola_holds(window, 16, 4, 30, 0, 100)


def test_two_windows_in_one_buffer_have_their_own_verdict() -> None:
    buffer = array("f", [1.0] * 8)
    first = torch.frombuffer(buffer, dtype=torch.float32)
    assert nola_holds(first, 8, 2, 30, 0, 60)
    buffer[0] = 0.0
    second = torch.frombuffer(buffer, dtype=torch.float32)
    assert second.data_ptr() == first.data_ptr() and second._version == first._version
    assert not nola_holds(second, 8, 2, 30, 0, 60)
    # one after the other in the same memory
    verdicts = []
    for value in (1.0, 0.0, 1.0):
        verdicts.append(nola_holds(torch.full((8,), value), 8, 2, 30, 0, 60))
        gc.collect()
    assert verdicts == [True, False, True]


def test_recycled_ids_are_not_confused() -> None:
    window = torch.ones(8)
    number = _derived._number(window)
    identity = id(window)
    assert _derived._number(window) == number
    del window
    gc.collect()
    assert identity not in _derived._numbers
    # an entry whose owner is gone but whose callback has not run yet
    other = torch.ones(8)
    dead = _derived.weakref.ref(gone := torch.ones(8))
    del gone
    _derived._numbers[id(other)] = (dead, number)
    assert _derived._number(other) != number


def test_windows_are_not_kept_alive() -> None:
    window = torch.hann_window(16)
    reciprocal_envelope(window, 16, 4, 30)
    nola_holds(window, 16, 4, 30, 8, 100)
    reference = _derived.weakref.ref(window)
    del window
    gc.collect()
    assert reference() is None


def test_caches_are_bounded() -> None:
    for _ in range(300):
        reciprocal_envelope(torch.ones(8), 8, 2, 30)
    assert len(_envelope._reciprocals) <= _envelope._reciprocals.limit
    assert len(_derived._numbers) < 300


def test_inference_mode_leaves_nothing_behind() -> None:
    window = torch.hann_window(8)
    with torch.inference_mode():
        table = reciprocal_envelope(window, 8, 2, 30)
        made_inside = torch.hann_window(8)
        reciprocal_envelope(made_inside, 8, 2, 30)
    assert not table.is_inference()
    assert not reciprocal_envelope(window, 8, 2, 30).is_inference()
    # has no version, so what is known about it may be outdated
    with torch.inference_mode():
        assert nola_holds(made_inside, 8, 2, 30, 4, 50)
        made_inside.zero_()
        assert not nola_holds(made_inside, 8, 2, 30, 4, 50)


def test_tables_of_a_window_that_requires_grad_have_no_history() -> None:
    window = torch.hann_window(8).requires_grad_()
    assert not reciprocal_envelope(window, 8, 2, 30).requires_grad
    assert nola_holds(window, 8, 2, 30, 4, 50)


def test_transforms_leave_nothing_behind(builds: list[int]) -> None:
    window = torch.hann_window(8)

    def scaled(x: Tensor) -> Tensor:
        return (x * reciprocal_envelope(window, 8, 2, 30)[4]).sum()

    x = torch.ones(3)
    torch.func.grad(scaled)(x)
    torch.vmap(scaled)(x)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(window)
        assert reciprocal_envelope(fake, 8, 2, 30).shape == (18,)
        assert nola_holds(fake, 8, 2, 30, 0, 50)
    assert len(_envelope._reciprocals) == 0
    table = reciprocal_envelope(window, 8, 2, 30)
    assert type(table) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(table)


def test_compile_computes_the_table_in_the_graph() -> None:
    torch._dynamo.reset()

    def scaled(x: Tensor, window: Tensor, n_frames: int) -> Tensor:
        return x * reciprocal_envelope(window, 8, 2, n_frames).sum() + nola_holds(window, 8, 2, n_frames, 0, 9)

    compiled = torch.compile(scaled, backend="aot_eager", fullgraph=True, dynamic=True)
    window = torch.ones(8)
    for n_frames in (30, 3, 40):
        torch.testing.assert_close(compiled(torch.ones(3), window, n_frames), scaled(torch.ones(3), window, n_frames))


def test_threads_share_one_table(builds: list[int]) -> None:
    window = torch.hann_window(64)
    tables: list[Tensor] = []
    in_threads(16, lambda _: tables.append(reciprocal_envelope(window, 64, 16, 100)))
    assert len(tables) == 16 and all(torch.equal(table, tables[0]) for table in tables)
    assert len(builds) == 1
