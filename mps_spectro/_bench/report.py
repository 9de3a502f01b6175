"""Measurements as Markdown and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

from .cases import TITLES, TRANSFORMS, Case, sizes

SCHEMA = 1
_CLOCKS = (("gpu", "hot"), ("cold", "cold"), ("wall", "wall"))


def header(meta: dict[str, Any]) -> str:
    lines = [
        "# mps-spectro bench",
        "",
        f"- device: {meta['device']} ({meta['device_type']}); ours runs on: {meta['backend']}",
        f"- torch {meta['torch']}, Python {meta['python']}, mps_spectro {meta['version']}",
        f"- elementwise bandwidth of this device, measured: {meta['bandwidth_gbps']:.0f} GB/s (bytes read and written)",
        f"- medians of {meta['repeats']} interleaved measurements (quartiles); times in ms",
        "- hot and cold: time on the device, one call after another and with flushed caches; wall: eager, per call",
        "- share: signal once and spectrum (or bands) once, per transform, over hot time and over that bandwidth",
        "- memory: MiB beyond the inputs at the worst moment, results included",
        "- error: largest difference from float64, relative to the largest value",
    ]
    if meta["note"]:
        lines.append(f"- {meta['note']}")
    return "\n".join(lines)


def section_title(section: str) -> str:
    return f"\n## {TITLES[section]}\n"


def tables(section: str, rows: list[dict[str, Any]], bandwidth: float) -> Iterator[str]:
    """The two tables of a section: times, then memory and error; then what is to be said about contenders."""
    rows = [row for row in rows if row["section"] == section]
    done = [row for row in rows if "contenders" in row]
    for row in rows:
        for why in ("skipped", "failed"):
            if why in row:
                yield f"{label(row)}: {why}, {row[why]}\n"
    if not done:
        return
    names = list(done[0]["contenders"])
    rivals = [name for name in names if name != "ours"]
    heads = ["case", "clock", *names, *(f"vs {rival}" for rival in rivals), "GB/s", "share"]
    yield _line(*heads) + "\n|---|---|" + "--:|" * (len(heads) - 2)
    for row in done:
        for key, name in _CLOCKS:
            times = [_time(row["contenders"][who], key) for who in names]
            ratios = [_ratio(row, key if rival == "torch" else f"{key}_{rival}") for rival in rivals]
            share = [f"{row['gbps']:.0f}", f"{row['gbps'] / bandwidth:.0%}"] if key == "gpu" else ["", ""]
            yield _line(label(row) if key == "gpu" else "", name, *times, *ratios, *share)
    yield ""
    yield _line("case", f"memory {names[0]}", *names[1:], "results", f"error {names[0]}", *names[1:])
    yield "|---|" + "--:|" * (2 * len(names) + 1)
    for row in done:
        who = row["contenders"]
        peaks = [_mebibytes(who[name].get("peak_bytes")) for name in names]
        found = [f"{who[name]['error']:.1e}" if "error" in who[name] else "-" for name in names]
        yield _line(label(row), *peaks, _mebibytes(row["result_bytes"]), *found)
    remarks = {
        f"- {name} of {row['work'].removesuffix('-backward')}: {contender[what]}": None
        for row in done
        for name, contender in row["contenders"].items()
        for what in ("note", "failed")
        if what in contender
    }
    if remarks:
        yield "\n" + "\n".join(remarks)


def label(row: dict[str, Any]) -> str:
    """A row's configuration in a few words."""
    text = f"B{row['batch']} T{_count(row['length'])} {sizes(row['n_fft'], row['hop'], row['bands'])}"
    if row["section"] not in TRANSFORMS:
        text = f"{row['work']} {text}"
    text += " bins-major" if row["layout"] == "bins" else ""
    return text + (f" ({row['note']})" if row["note"] else "")


def targets(rows: list[dict[str, Any]], cases: list[Case], bandwidth: float) -> Iterator[str]:
    """What was aimed at on one H200, and what this run reached."""
    by_name = {row["name"]: row for row in rows if "contenders" in row}
    aimed = [case for case in cases if case.target is not None and case.name in by_name]
    if not aimed:
        return
    yield "\n## Targets (set for one H200)\n"
    yield "| case | clock | vs torch | target | share | target | |\n|---|---|--:|--:|--:|--:|---|"
    for case in aimed:
        row, target = by_name[case.name], case.target
        assert target is not None
        ratio, share = row["ratios"][target.clock], row["gbps"] / bandwidth
        met = ratio >= target.ratio and (target.share is None or share >= target.share)
        shares = ["", ""] if target.share is None else [f"{share:.0%}", f"{target.share:.0%}"]
        yield _line(
            case.name,
            "hot" if target.clock == "gpu" else target.clock,
            f"{ratio:.2f}x",
            f"{target.ratio:.1f}x",
            *shares,
            "met" if met else "missed",
        )
    worse = [row for row in by_name.values() if row["contenders"]["ours"]["error"] > _torch_error(row)]
    yield f"\nError above torch's in {len(worse)} of {len(by_name)} rows" + "".join(f"; {row['name']}" for row in worse)
    extra = [
        (row["contenders"]["ours"]["peak_bytes"] - row["result_bytes"] + row["contenders"]["ours"]["kept_bytes"], row)
        for row in by_name.values()
        if row["contenders"]["ours"]["peak_bytes"] and row["work"] in ("stft", "istft")
    ]
    if extra:
        most, row = max(extra, key=lambda pair: pair[0])
        yield f"\nMost memory beyond the result and the tables in forward calls: {most / 2**10:.0f} KiB, {row['name']}"


def _torch_error(row: dict[str, Any]) -> float:
    error: float = row["contenders"].get("torch", {}).get("error", float("inf"))
    return error


def save(path: str, meta: dict[str, Any], rows: list[dict[str, Any]], profile: list[dict[str, Any]]) -> None:
    """Writes what benchmarks/README.md describes."""
    document = {"schema": SCHEMA, **meta, "cases": rows}
    if profile:
        document["dispatch_profile"] = profile
    Path(path).write_text(json.dumps(document, indent=1) + "\n")


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _time(contender: dict[str, Any], key: str) -> str:
    spread = contender.get(f"{key}_ms")
    if spread is None:
        return "failed" if "failed" in contender else "-"
    mark = "*" if spread["method"] == "events" else ""
    return f"{_digits(spread['median'])}{mark} ({_digits(spread['low'])}-{_digits(spread['high'])})"


def _digits(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _ratio(row: dict[str, Any], key: str) -> str:
    return f"{row['ratios'][key]:.2f}x" if key in row["ratios"] else "-"


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.2f}" if count < 10 * 2**20 else f"{count / 2**20:.0f}"


def _count(n: int) -> str:
    return f"{n / 1e6:.3g}M" if n >= 10**6 else f"{n / 1e3:.4g}k" if n >= 1000 else str(n)
