"""The benchmark's own arithmetic and comparison, and a run of it on the CPU. No test here depends on a time."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import front_end_cases
import pytest
import torch
from conftest import require_route
from torchaudio_stub import import_torchaudio

from mps_spectro import use_backend
from mps_spectro._bench import analyses, front_ends, measure, report
from mps_spectro._bench import cases as bench_cases
from mps_spectro._bench.cases import SECTIONS, TRANSFORMS, Case, cases, recording_cases
from mps_spectro._bench.clocks import Clock, Spread, _Answers
from mps_spectro._bench.comparison import Comparison, largest_error, noise
from mps_spectro._bench.contenders import CONTENDERS, Reference, make_inputs, work_of
from mps_spectro._bench.measure import compare
from mps_spectro._cli import main

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load("check_benchmarks")


# --- cases -----------------------------------------------------------------------------------------------------------


def test_every_row_has_its_own_name_and_every_section_has_rows() -> None:
    rows = cases()
    assert len({case.name for case in rows}) == len(rows)
    assert {case.section for case in rows} == set(SECTIONS)
    assert all(case.quick for case in rows if case.target is not None)


def test_a_row_knows_its_shapes() -> None:
    for case in (case for case in cases(small=True) if case.work in TRANSFORMS):
        spectrum = torch.stft(
            torch.randn(case.batch, case.length),
            case.n_fft,
            case.hop,
            window=torch.ones(case.n_fft),
            return_complex=True,
        )
        assert spectrum.shape == (case.batch, case.bins, case.frames)
        assert case.spectrum_bytes == spectrum.numel() * 8
        assert case.floor_bytes % (case.spectrum_bytes + 4 * case.batch * case.length) == 0


def test_a_front_end_s_row_knows_its_bands() -> None:
    for case in (case for case in cases(small=True) if case.section == "frontends"):
        (bands,) = [results[0] for results in [compare(case, CPU).makers["torch"]()()]]
        assert bands.shape[:2] == (case.batch, case.bands)
        assert case.frames - 1 <= bands.shape[2] <= case.frames
        moved = 4 * (case.length + case.bands * case.frames)
        assert case.floor_bytes == moved * (2 if case.work.endswith("backward") else 1)


def test_rows_for_a_recording_leave_out_sizes_it_is_too_short_for() -> None:
    assert {case.n_fft for case in recording_cases(2, 3000)} == {1024, 2048}


# --- what is compared computes the same -------------------------------------------------------------------------------

WORKS = ("stft", "istft", "stft-backward", "istft-backward", "round-trip-backward")


@pytest.mark.parametrize("backend", ["torch", "host"])
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("n_fft, hop, layout", [(64, 16, "frames"), (64, 16, "bins"), (21, 5, "frames")])
def test_contenders_agree_with_float64(work: str, n_fft: int, hop: int, layout: str, backend: str) -> None:
    require_route(backend)
    # longer than the part that is compared
    case = Case(work, work, 2, 60 * n_fft, n_fft, hop, layout)
    inputs = make_inputs(case, CPU)
    reference = Reference(case, inputs, CPU)
    with use_backend(backend):
        for contender in CONTENDERS:
            results = work_of(contender, case, inputs)()
            assert reference.error(results) < 2e-6, contender


def test_error_sees_a_wrong_value_and_nan() -> None:
    case = Case("stft", "stft", 1, 2000, 64, 16)
    inputs = make_inputs(case, CPU)
    reference = Reference(case, inputs, CPU)
    (right,) = work_of("torch", case, inputs)()
    wrong = right.clone()
    wrong[0, 3, 5] += 1e-3 * right.abs().max()
    assert reference.error((wrong,)) == pytest.approx(1e-3, rel=0.01)
    wrong[0, 3, 5] = torch.nan
    assert not reference.error((wrong,)) < 1


def test_bins_major_spectra_are_bins_major() -> None:
    case = Case("istft", "istft", 1, 2000, 64, 16, "bins")
    spectrum = make_inputs(case, CPU).spectrum
    assert spectrum is not None and spectrum.is_contiguous()


def test_answers_of_the_device_are_repeated_without_asking() -> None:
    spectrum = torch.stft(torch.randn(1, 4000), 64, 16, window=torch.hann_window(64), return_complex=True)
    asked = _Answers()
    with asked:
        first = torch.istft(spectrum, 64, 16, window=torch.hann_window(64))
    assert asked.given  # torch checks the window's envelope
    again = asked.again()
    with again:
        second = torch.istft(spectrum, 64, 16, window=torch.hann_window(64))
    assert torch.equal(first, second)
    assert not again.given


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)


def test_a_short_call_is_repeated_and_counted() -> None:
    made = []
    prepared = Clock(CPU).prepare(lambda: made.append(1), 0.05, graphs=False)
    made.clear()
    prepared.run()
    assert len(made) == prepared.calls > 1


# --- front ends -------------------------------------------------------------------------------------------------------

BANDS = {case.work: case for case in cases(small=True) if case.section == "frontends"}


@pytest.mark.parametrize("backend", ["torch", "host"])
@pytest.mark.parametrize("work", BANDS)
def test_front_ends_agree_with_float64(work: str, backend: str) -> None:
    require_route(backend)
    comparison = compare(dataclasses.replace(BANDS[work], batch=2, length=4000), CPU)
    error = comparison.reference(CPU)
    assert list(comparison.makers) == ["torch", "peer", "ours"]
    with use_backend(backend):
        for contender, make in comparison.makers.items():
            results = make()()
            assert len(results) == 1 + work.endswith("backward")
            assert error(results) < 1e-5, contender
            results[-1][0, ..., 7] += 1e-3 * results[-1].abs().max()
            assert error(results) > 5e-4, contender


@pytest.mark.parametrize("work", [work for work in BANDS if not work.endswith("backward") and work != "log-mel"])
def test_a_peer_is_what_its_project_defines(work: str) -> None:
    pytest.importorskip("librosa")
    (got,) = compare(BANDS[work], CPU).makers["peer"]()()
    preset, _, keyshift = work.partition("-keyshift-")
    shift = {"keyshift": float(keyshift)} if keyshift else {}
    expected = front_end_cases.PRESET_REFERENCES[preset](noise(BANDS[work], CPU), **shift)
    assert front_end_cases.absolute(got, expected) < front_end_cases.LOGARITHMIC


def test_the_peer_of_log_mel_is_torchaudio_or_the_same_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    torchaudio, case = import_torchaudio(), BANDS["log-mel"]
    real = compare(case, CPU)
    assert f"torchaudio {torchaudio.__version__}" in real.notes["peer"]

    def fails(name: str) -> Any:
        raise OSError("could not load\nat length")

    monkeypatch.setattr(front_ends, "import_module", fails)
    same = compare(case, CPU)
    assert same.notes["peer"].endswith("torchaudio itself is not used: OSError: could not load")
    torch.testing.assert_close(same.makers["peer"]()(), real.makers["peer"]()(), rtol=1e-6, atol=1e-5)


# --- beside librosa ---------------------------------------------------------------------------------------------------

ANALYSES = [case for case in cases(small=True) if case.section in ("features", "cqt")]


@pytest.mark.parametrize("backend", ["torch", "host"])
@pytest.mark.parametrize("case", ANALYSES, ids=lambda case: case.section)
def test_analyses_agree_with_float64(case: Case, backend: str) -> None:
    require_route(backend)
    pytest.importorskip("librosa")
    case = dataclasses.replace(case, batch=2)
    comparison = compare(case, CPU)
    error = comparison.reference(CPU)
    assert list(comparison.makers)[0] == "torch" and list(comparison.makers)[-2:] == ["librosa", "ours"]
    with use_backend(backend):
        for contender, make in comparison.makers.items():
            results = make()()
            assert sum(result.shape[1] for result in results) == case.bands
            assert {result.shape[2] for result in results} == {case.frames}
            # contrast has the smallest magnitudes of float32 in decibels
            assert error(results) < 1e-4, contender
            results[0][0, ..., 7] += 1e-2 * results[0].abs().max()
            assert error(results) > 5e-3, contender


def test_librosa_takes_no_part_where_it_is_not_installed_or_would_take_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="not installed: No module named 'librosa'"):
        patch.setattr(analyses, "import_module", fails)
        compare(ANALYSES[0], CPU).makers["librosa"]()
    monkeypatch.setattr(analyses, "_LONGEST", 1000)
    with pytest.raises(RuntimeError, match="left out: more than 1000 samples"):
        compare(ANALYSES[0], CPU).makers["librosa"]()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_ratios_are_of_one_run_and_a_contender_may_fail_or_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Any:
        raise RuntimeError("no such library\nhere")

    def of(value: float) -> Any:
        return lambda: lambda: (torch.tensor([value]),)

    makers = {"torch": of(1.0), "peer": refused, "librosa": of(1.5), "ours": of(1.25)}
    comparison = Comparison(
        makers, lambda where: lambda got: largest_error(got, (torch.tensor([1.0]),)), {"peer": "a library"}
    )
    monkeypatch.setattr(measure, "compare", lambda *_: comparison)
    row = measure.measure(BANDS["log-mel"], Clock(CPU), measure.Effort(3, 0.01, 1.0))
    found = row["contenders"]
    assert found["peer"] == {"note": "a library", "failed": "no such library"}
    assert [found[name]["error"] for name in ("torch", "librosa", "ours")] == [0.0, 0.5, 0.25]
    assert "gpu_ms" not in found["librosa"] and found["librosa"]["peak_bytes"] is None
    assert set(row["ratios"]) == {"gpu", "cold", "wall", "wall_librosa"}
    for ratio, rival in (("gpu", "torch"), ("cold", "torch"), ("wall", "torch"), ("wall_librosa", "librosa")):
        key = ratio.split("_")[0] + "_ms"
        expected = found[rival][key]["median"] / found["ours"][key]["median"]
        assert row["ratios"][ratio] == pytest.approx(expected, abs=1e-4)
    text = "\n".join(report.tables("frontends", [row], 1000.0))
    assert "- peer of log-mel: a library\n- peer of log-mel: no such library" in text and "| failed |" in text
    for table in text.split("\n\n")[:2]:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


# --- report ----------------------------------------------------------------------------------------------------------


def row_of(case: Case, ratio: float, share: float) -> dict[str, Any]:
    """A row as measure() makes it, on a device of 1000 GB/s."""
    spread = {"median": 1.0, "low": 1.0, "high": 1.0, "method": "graph", "repeats": 11}
    contenders = {
        name: {"error": 1e-7, "peak_bytes": 4096, "kept_bytes": 0}
        | {f"{clock}_ms": dict(spread) for clock in ("gpu", "cold", "wall")}
        for name in CONTENDERS
    }
    return {
        "name": case.name,
        "section": case.section,
        "work": case.work,
        "batch": case.batch,
        "length": case.length,
        "n_fft": case.n_fft,
        "hop": case.hop,
        "layout": case.layout,
        "bands": case.bands,
        "note": case.note,
        "quick": case.quick,
        "floor_bytes": case.floor_bytes,
        "result_bytes": 4096,
        "contenders": contenders,
        "ratios": {"gpu": ratio, "cold": ratio, "wall": ratio, "memory": 1.0},
        "gbps": 1000.0 * share,
    }


def test_targets_are_judged_by_ratio_and_share() -> None:
    case = next(case for case in cases() if case.target is not None and case.target.share is not None)
    assert case.target is not None and case.target.share is not None

    def verdict(ratio: float, share: float) -> str:
        lines = list(report.targets([row_of(case, ratio, share)], [case], 1000.0))
        return next(line for line in lines if case.name in line).split("|")[-2].strip()

    assert verdict(case.target.ratio, case.target.share) == "met"
    assert verdict(case.target.ratio - 0.1, case.target.share) == "missed"
    assert verdict(case.target.ratio, case.target.share - 0.1) == "missed"


def test_a_row_that_was_skipped_and_one_that_failed_are_shown_as_such() -> None:
    case = bench_cases.Case("stft", "stft", 1, 16000, 512, 128)
    rows: list[dict[str, Any]] = [row_of(case, 2.0, 0.5) for _ in range(3)]
    for row, why in zip(rows, ("skipped", "failed")):
        for key in ("contenders", "ratios"):
            del row[key]
        row[why] = f"{why} for a reason"
    text = "\n".join(report.tables("stft", rows, 1000.0))
    assert "skipped for a reason" in text and "failed for a reason" in text
    assert text.count("2.00x") == 3 and "50%" in text


# --- comparison with a baseline ---------------------------------------------------------------------------------------


def document(**ratios: dict[str, float]) -> dict[str, Any]:
    rows = [{"name": name, "quick": name != "slow", "ratios": values} for name, values in ratios.items()]
    return {"schema": 1, "device": "A", "backend": "cuda", "torch": "2.11", "quick": False, "cases": rows}


BASE = document(
    one={"gpu": 4.0, "wall": 2.0, "gpu_framed": 9.0, "gpu_peer": 5.0, "wall_librosa": 50.0, "gpu_compiled": 0.9},
    slow={"gpu": 3.0},
)


def failures(new: dict[str, Any], allowed: float = 0.15, metrics: Any = tuple(check.METRICS)) -> list[str]:
    found: list[str] = check.compare(new, BASE, allowed, metrics)
    return found


def changed(name: str, **ratios: float) -> dict[str, Any]:
    new = copy.deepcopy(BASE)
    next(row for row in new["cases"] if row["name"] == name)["ratios"].update(ratios)
    return new


def test_the_same_run_passes() -> None:
    assert failures(copy.deepcopy(BASE)) == []


@pytest.mark.parametrize("now, fails", [(8.0, False), (3.41, False), (3.39, True), (float("nan"), True)])
def test_a_ratio_may_fall_by_what_is_allowed(now: float, fails: bool) -> None:
    assert [failure.split(":")[0] for failure in failures(changed("one", gpu=now))] == ["one"] * fails


def test_what_is_allowed_and_compared_can_be_chosen() -> None:
    assert failures(changed("one", gpu=3.0), allowed=0.3) == []
    assert failures(changed("one", gpu=3.0), metrics=["wall"]) == []


def test_some_rivals_are_only_shown() -> None:
    assert failures(changed("one", gpu_framed=0.1, wall_librosa=0.1, gpu_compiled=0.1)) == []
    assert failures(changed("one", gpu_peer=2.0)) == ["one: hot time 2.00x of peer, was 5.00x (-60%)"]


def test_missing_rows_and_ratios_fail() -> None:
    new = copy.deepcopy(BASE)
    del new["cases"][0]["ratios"]["wall"]
    del new["cases"][1]["ratios"]
    new["cases"][1]["skipped"] = "no memory"
    assert failures(new) == ["one: eager wall time beside torch is missing", "slow: missing: no memory"]
    del new["cases"][1]
    assert "slow: missing" in failures(new)


def test_a_quick_run_is_compared_with_quick_rows() -> None:
    new = copy.deepcopy(BASE)
    new["quick"] = True
    del new["cases"][1]
    assert failures(new) == []


def test_new_rows_are_no_failure() -> None:
    new = copy.deepcopy(BASE)
    new["cases"].append({"name": "new", "quick": True, "ratios": {"gpu": 0.1}})
    assert failures(new) == []


def test_check_exits_with_one_and_warns_of_another_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(BASE))
    new.write_text(json.dumps({**changed("one", gpu=1.0), "device": "B"}))
    assert check.main([str(old), str(old)]) == 0
    assert capsys.readouterr().err == ""
    assert check.main([str(new), str(old)]) == 1
    printed = capsys.readouterr()
    assert "device differs: B now, A in the baseline" in printed.err
    assert "FAIL one: hot time 1.00x of torch, was 4.00x (-75%)" in printed.out
    assert "2 rows compared with old.json: 1 failures" in printed.out
    assert check.main([str(new), str(old), "--allowed-regression", "0.8"]) == 0


def test_baseline_is_chosen_by_device(tmp_path: Path) -> None:
    assert check.baseline_for("A", tmp_path) is None
    for name in "AB":
        (tmp_path / f"{name}.json").write_text(json.dumps({"device": name}))
    assert check.baseline_for("B", tmp_path) == tmp_path / "B.json"
    assert check.baseline_for("C", tmp_path) is None


# --- the command -----------------------------------------------------------------------------------------------------


def test_bench_runs_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_route("host")
    pytest.importorskip("matplotlib")
    pytest.importorskip("librosa")
    file, picture = tmp_path / "run.json", tmp_path / "run.png"
    wanted = ["--section", "stft", "--section", "round-trip-backward", "--section", "frontends", "--section", "cqt"]
    wanted += ["--json", str(file), "--plot", str(picture)]
    assert main(["bench", "--quick", "--device", "cpu", "--dispatch-profile", *wanted]) == 0
    printed = capsys.readouterr().out
    assert "ours runs on: host" in printed and "small sizes only" in printed
    assert "B1 T16k 512/128" in printed and "## Dispatch" in printed
    run = json.loads(file.read_text())
    assert run["schema"] == report.SCHEMA and run["quick"] and run["backend"] == "host"
    assert {row["work"] for row in run["cases"]} == {
        "stft",
        "round-trip-backward",
        "log-mel",
        "log-mel-backward",
        "hybrid-cqt",
    }
    for row in run["cases"]:
        second = {"frontends": "peer", "cqt": "librosa"}.get(row["section"], "framed")
        assert list(row["contenders"]) == ["torch", second, "ours"] and f"wall_{second}" in row["ratios"]
        assert (f"gpu_{second}" in row["ratios"]) == (second != "librosa")
        assert {"gpu", "cold", "wall"} <= set(row["ratios"])
        assert all(contender["error"] < 1e-5 for contender in row["contenders"].values())
    assert {"torch", "function", "op", "kernels", "launch"} == set(run["dispatch_profile"][0]["host_us"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    # a run is its own baseline
    assert check.main([str(file), str(file)]) == 0


def test_bench_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mps_spectro._demo_files import synthesise, write_wav

    require_route("host")
    signal, rate, _ = synthesise(rate=8000, seconds=0.4)
    write_wav(tmp_path / "sound.wav", signal, rate)
    sections = ["--section", "separator"]  # has no rows on the CPU
    assert main(["bench", "--quick", "--device", "cpu", *sections, "--audio", str(tmp_path / "sound.wav")]) == 0
    printed = capsys.readouterr().out
    assert "sound.wav: 2 channels, 8000 Hz, 0.4 s" in printed
    assert "round-trip-backward B2 T3.2k 2048/512" in printed
    assert main(["bench", "--quick", "--device", "cpu", "--audio", str(tmp_path / "none.wav")]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_bench_refuses_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cuda"]) == 1
    assert "no cuda device" in capsys.readouterr().err


def test_the_script_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench.py"), "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "--dispatch-profile" in done.stdout
