"""Routes: the same tests over plain torch, the shaders on the CPU, the (simulated) MPS device and CUDA."""

from __future__ import annotations

import functools
import os
from collections import Counter
from dataclasses import dataclass
from typing import Iterator

# a developer's own settings must not decide what the tests compare
for _name in ("MPS_SPECTRO_BACKEND", "MPS_SPECTRO_DISABLE"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402
import torch  # noqa: E402

from mps_spectro._backend import use_backend  # noqa: E402

# asked before the simulated device is installed, which answers True from then on
REAL_MPS = torch.backends.mps.is_available()
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Route:
    """One way through the package: tensors on `device`, answered by `backend`."""

    name: str
    device: str
    backend: str

    @property
    def float64(self) -> bool:
        """Whether the device has float64 at all."""
        return self.device != "mps"

    @property
    def kernels(self) -> bool:
        """Whether shaders answer here, and not plain torch."""
        return self.backend != "torch"


ROUTES = {
    "torch": Route("torch", "cpu", "torch"),
    "host": Route("host", "cpu", "host"),
    "mps": Route("mps", "mps", "metal"),
    "cuda": Route("cuda", "cuda", "cuda"),
}
_missing: dict[str, str | None] = {}


def _why_missing(name: str) -> str | None:
    """What keeps this route from running here, None when it runs. Asked once; makes the simulated device if needed."""
    if name == "cuda":
        return None if torch.cuda.is_available() else "no CUDA device"
    if name == "mps" and not REAL_MPS:
        import simulated_mps

        why = simulated_mps.why_unavailable()
        if why is not None:
            return why
        simulated_mps.install()
    if name == "host":
        from mps_spectro._runtime import RuntimeUnavailable, host

        try:
            host.compile_source("")
        except RuntimeUnavailable as why:
            return str(why)
    return None


def require_route(name: str) -> Route:
    """The route of this name; skips the test where it cannot run, and fails it in CI unless a GPU is what lacks."""
    if name not in _missing:
        _missing[name] = _why_missing(name)
    why = _missing[name]
    if why is not None:
        if IN_CI and name != "cuda":
            pytest.fail(f"route {name} must run in CI: {why}", pytrace=False)
        pytest.skip(f"route {name}: {why}")
    return ROUTES[name]


_MARKS = {"mps": [pytest.mark.mps], "cuda": [pytest.mark.cuda]}


@pytest.fixture(params=[pytest.param(name, id=name, marks=_MARKS.get(name, [])) for name in ROUTES])
def route(request: pytest.FixtureRequest) -> Iterator[Route]:
    """The test runs once per route, inside `use_backend(route.backend)`."""
    request.node.user_properties.append(("route", request.param))
    chosen = require_route(request.param)
    with use_backend(chosen.backend):
        yield chosen


@pytest.fixture(params=[pytest.param(name, id=name, marks=_MARKS.get(name, [])) for name in ROUTES if name != "torch"])
def kernel_route(request: pytest.FixtureRequest) -> Iterator[Route]:
    """The same for the routes on which shaders answer."""
    request.node.user_properties.append(("route", request.param))
    chosen = require_route(request.param)
    with use_backend(chosen.backend):
        yield chosen


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels run on the host, compiled anew with their accesses checked."""
    from fences import forget_launches

    from mps_spectro import _kernels
    from mps_spectro._runtime import host
    from mps_spectro._runtime.source import assemble

    require_route("host")
    compile_checked = functools.partial(host.compile_source, checked=True, seed=7)
    compiled = functools.lru_cache(maxsize=None)(lambda shader, defines: compile_checked(assemble(shader, defines)))
    monkeypatch.setattr(_kernels, "library", lambda backend, shader, defines, device: compiled(shader, defines))
    forget_launches()
    with use_backend("host"):
        yield
    forget_launches()


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch.manual_seed(0)


_counts: dict[str, Counter[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # a skip or a failure in set-up leaves no "call" report
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        name = dict(report.user_properties).get("route", "no route")
        _counts.setdefault(str(name), Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("tests per route")
    for name in [*ROUTES, "no route"]:
        counts = _counts.get(name, Counter())
        label = "mps (simulated)" if name == "mps" and not REAL_MPS else name
        tally = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        terminalreporter.write_line(f"{label:16} {tally}")
