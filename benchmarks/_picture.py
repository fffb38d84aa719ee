"""One kind of picture for all comparisons: means with their 95 % intervals, a panel a setting."""

from collections.abc import Mapping
from pathlib import Path

Rows = Mapping[str, tuple[float, float, float]]
"""Name of a row: mean, low, high."""

ACCENT, PLAIN = "#1b6ca8", "#8a8a8a"


def whiskers(panels: Mapping[str, Rows], path: Path, *, label: str, accent: str) -> None:
    """Draw dots with whiskers.

    Args:
        panels: Title of each panel and its rows, the first row on top.
        path: The SVG file to write; the same numbers give the same file.
        label: Of the axis.
        accent: Rows whose name begins so are drawn in colour.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = path.name
    width = 3 * len(panels) + 2
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 3.2), sharey=True, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        names = list(rows)[::-1]
        colors = [ACCENT if name.startswith(accent) else PLAIN for name in names]
        places = range(len(names))
        axis.hlines(places, [rows[n][1] for n in names], [rows[n][2] for n in names], color=colors)
        axis.scatter([rows[n][0] for n in names], places, color=colors)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(label)
        axis.set_yticks(places, names)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
