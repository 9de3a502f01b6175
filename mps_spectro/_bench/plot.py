"""The run as a picture: how many times faster than torch, and what share of the bandwidth."""

from __future__ import annotations

from typing import Any

from .cases import TITLES
from .report import label

_NAMES = {"framed": "frames + library FFT", "peer": "the peer"}


def plot(path: str, meta: dict[str, Any], rows: list[dict[str, Any]]) -> str | None:
    """Draws one panel per section. Returns what is missing if it cannot."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "no plot: it needs matplotlib, pip install 'mps-spectro[plots]'"
    rows = [row for row in rows if "gpu" in row.get("ratios", {})]
    sections = list(dict.fromkeys(row["section"] for row in rows))
    if not sections:
        return "no plot: nothing was measured"
    counts = [sum(row["section"] == section for row in rows) for section in sections]
    figure = Figure(figsize=(12, 1.6 + 0.28 * sum(counts) + 0.7 * len(sections)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"mps_spectro {meta['version']} on {meta['device']}, torch {meta['torch']}: times faster, hot")
    panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=[count + 1.5 for count in counts])[:, 0]
    for panel, section in zip(panels, sections):
        shown = [row for row in rows if row["section"] == section][::-1]
        second = next(name for name in shown[0]["contenders"] if name != "torch")
        for offset, rival, colour in ((0.19, "torch", "#3b6ea5"), (-0.19, second, "#c9a227")):
            widths = [row["ratios"].get("gpu" if rival == "torch" else f"gpu_{rival}", 0.0) for row in shown]
            places = [index + offset for index in range(len(shown))]
            panel.barh(places, widths, height=0.36, color=colour, label=f"than {_NAMES.get(rival, rival)}")
        for index, row in enumerate(shown):
            share = row["gbps"] / meta["bandwidth_gbps"]
            panel.text(row["ratios"]["gpu"], index + 0.19, f" {share:.0%} of bandwidth", va="center", fontsize=7)
        panel.set_yticks(range(len(shown)), [label(row) for row in shown], fontsize=8)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.margins(x=0.12)
        panel.set_title(TITLES[section], fontsize=10, loc="left")
        panel.legend(fontsize=8, loc="lower right")
    figure.savefig(path)
    return None
