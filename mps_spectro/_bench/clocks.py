"""Timing and memory on each kind of device. Times are in milliseconds."""

from __future__ import annotations

import platform
import time
from typing import Any, Callable, NamedTuple, Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Call = Callable[[], Any]


class Spread(NamedTuple):
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = torch.tensor(sorted(values), dtype=torch.float64)
        low, median, high = torch.quantile(ordered, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
        return cls(median, low, high)


class Prepared(NamedTuple):
    """A call made ready to be timed on the device: `run` does `calls` of them."""

    run: Call
    calls: int
    method: str  # "graph", "events" or "wall"


class Clock:
    """The CPU's: everything is wall time. Also what the others share."""

    kind = "cpu"
    flush_bytes = 64 << 20

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flush: torch.Tensor | None = None

    @property
    def name(self) -> str:
        return platform.processor() or platform.machine()

    def synchronize(self) -> None:
        pass

    def free_bytes(self) -> int | None:
        """Memory that is left, where the device tells."""
        return None

    def release(self) -> None:
        """Gives cached memory back between cases."""

    def allocated(self) -> int:
        return 0

    def peak(self, call: Call) -> int | None:
        """Bytes that the call has at its worst moment beyond what was there before, its results included."""
        call()
        return None

    def elapsed(self, run: Call) -> float:
        """Time on the device from before `run` to after it."""
        start = time.perf_counter()
        run()
        self.synchronize()
        return 1000 * (time.perf_counter() - start)

    def prepare(self, call: Call, target_ms: float, graphs: bool) -> Prepared:
        """Makes a call ready for `elapsed`, in so many repetitions that they take about `target_ms`.

        `graphs`: the device's memory allows a captured graph.
        """
        return Prepared(*_repeated(call, self.elapsed(call), target_ms), "wall")

    def prepare_cold(self, call: Call, graphs: bool) -> Prepared:
        """One call, for `cold`."""
        return Prepared(call, 1, "wall")

    def cold(self, run: Call) -> float:
        """Time of `run` with caches that hold none of its data."""
        if self._flush is None:
            self._flush = torch.empty(self.flush_bytes // 4, device=self.device)
        self._flush.zero_()
        return self.elapsed(run)

    def wall(self, call: Call, calls: int) -> float:
        """Time per call of a loop as a program would write it, one wait at its end."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.synchronize()
        return 1000 * (time.perf_counter() - start) / calls

    def host(self, call: Call, calls: int) -> float:
        """Time per call until control is back, the device left to itself."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        took = time.perf_counter() - start
        self.synchronize()
        return 1000 * took / calls

    def bandwidth(self) -> float:
        """GB/s that one elementwise kernel moves, read and written."""
        count = (64 << 20 if self.kind == "cpu" else 512 << 20) // 4
        source, out = torch.ones(count, device=self.device), torch.empty(count, device=self.device)
        run, calls, _ = self.prepare(lambda: torch.mul(source, 2.0, out=out), 5.0, graphs=False)
        median = Spread.of([self.elapsed(run) / calls for _ in range(11)]).median
        return 8 * count / median / 1e6


def _repeated(call: Call, estimate_ms: float, target_ms: float, most: int = 1000) -> tuple[Call, int]:
    calls = max(1, min(most, round(target_ms / max(estimate_ms, 1e-4))))
    if calls == 1:
        return call, 1

    def run() -> None:
        for _ in range(calls):
            call()

    return run, calls


class MpsClock(Clock):
    """Apple GPUs: events around many calls."""

    kind = "mps"
    flush_bytes = 256 << 20

    @property
    def name(self) -> str:
        return f"Apple GPU, {platform.processor() or platform.machine()}, macOS {platform.mac_ver()[0]}"

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def free_bytes(self) -> int | None:
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()

    def release(self) -> None:
        torch.mps.empty_cache()

    def allocated(self) -> int:
        return torch.mps.current_allocated_memory()

    def elapsed(self, run: Call) -> float:
        start, end = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        self.synchronize()
        return start.elapsed_time(end)

    def prepare(self, call: Call, target_ms: float, graphs: bool) -> Prepared:
        call()
        return Prepared(*_repeated(call, self.elapsed(call), target_ms), "events")

    def prepare_cold(self, call: Call, graphs: bool) -> Prepared:
        return Prepared(call, 1, "events")


class CudaClock(Clock):
    """NVIDIA GPUs: graphs of several calls where memory allows, else events around many calls."""

    kind = "cuda"
    flush_bytes = 1 << 30
    _stream: torch.cuda.Stream | None = None

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def free_bytes(self) -> int | None:
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + cached

    def release(self) -> None:
        torch.cuda.empty_cache()

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def peak(self, call: Call) -> int | None:
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        result = call()
        self.synchronize()
        del result
        return torch.cuda.max_memory_allocated(self.device) - before

    def elapsed(self, run: Call) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def prepare(self, call: Call, target_ms: float, graphs: bool) -> Prepared:
        call()
        estimate = self.elapsed(call)
        # a captured graph of a few calls hides the host, which an event around one short call would measure
        in_graph = max(1, min(20, round(1.0 / max(estimate, 1e-3))))
        replay = self._capture(call, in_graph) if graphs else None
        if replay is None:
            return Prepared(*_repeated(call, estimate, target_ms), "events")
        replay()
        run, replays = _repeated(replay, self.elapsed(replay), target_ms)
        return Prepared(run, replays * in_graph, "graph")

    def prepare_cold(self, call: Call, graphs: bool) -> Prepared:
        replay = self._capture(call, 1) if graphs else None
        return Prepared(call, 1, "events") if replay is None else Prepared(replay, 1, "graph")

    def _capture(self, call: Call, calls: int) -> Call | None:
        """A replay of the device's part of `calls` calls, or None when they cannot be captured."""
        answers = _Answers()
        # always the same one: what a contender keeps per stream is then there before the capture
        stream = self._stream = self._stream or torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            call()
            with answers:
                call()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self.synchronize()
        graph, outside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, stream=stream):
                for _ in range(calls):
                    if answers.given:
                        with answers.again():
                            call()
                    else:
                        call()
        except RuntimeError:
            torch.cuda.set_stream(outside)  # a capture that fails leaves its own behind
            self.synchronize()
            return None
        return graph.replay


class _Answers(TorchDispatchMode):
    """Writes down what the device answered the host (torch.istft asks whether the window's envelope vanishes), and says
    it again without asking, which a capture does not allow. The rest of the work stays as it is."""

    _ASKING = (
        torch.ops.aten.equal.default,
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.is_nonzero.default,
    )

    def __init__(self, given: tuple[Any, ...] | None = None) -> None:
        super().__init__()
        self.given: list[Any] = list(given or ())
        self._replays = given is not None

    def again(self) -> _Answers:
        return _Answers(tuple(self.given))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self._ASKING:
            return func(*args, **(kwargs or {}))
        if self._replays:
            return self.given.pop(0)
        self.given.append(func(*args, **(kwargs or {})))
        return self.given[-1]


def clock_for(device: torch.device) -> Clock:
    return {"cuda": CudaClock, "mps": MpsClock}.get(device.type, Clock)(device)
