"""Pictures of the collaboration bench: times, bytes, and the paper's Figures 1 and 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bus.errors import ConfigurationError
from .collab_paper import COLLABORATIVE, NAIVE

_SHOWN = ("cloud", "naive-kv", "standalone", "ce", "ce-half", "ce-optimistic", "through", "auto", "auto-lossy")
_FIGURE_1 = {NAIVE: "naive", COLLABORATIVE: "CE-CoLLM"}
_DPI = 90


def plot_collab(result: dict[str, Any], confidences: Sequence[Sequence[float]], folder: Path) -> list[Path]:
    """Draw a bench's result; returns where the pictures are.

    confidences: of each exit, at every token of the whole model's answers. Raises ModuleNotFoundError without
    matplotlib, ConfigurationError where the folder cannot be written.
    """
    rows = [*result["rows"], *result["cells"]]
    pictures = {
        "total.png": _totals(rows),
        "bytes.png": _bytes(result["rows"]),
        "figure-1.png": _figure_1(result["table_1"]),
        "figure-3.png": _figure_3(confidences),
    }
    return [save(figure, folder / name) for name, figure in pictures.items()]


def save(figure: Any, path: Path) -> Path:
    """Write a PNG. Raises ConfigurationError where that cannot be done."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path} ({error.strerror}): name another folder") from error
    return path


def new_figure(width_in: float, height_in: float) -> Any:
    """Imported here: only who plots needs matplotlib, and it comes with the extra `train`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _totals(rows: Sequence[dict[str, Any]]) -> Any:
    links = list(dict.fromkeys(row["link"] for row in rows))
    totals = {(row["mode"], row["link"]): row["total_ms"] for row in rows}
    figure = new_figure(9, 4.5)
    axes = figure.add_subplot()
    for mode in _SHOWN:
        axes.plot([totals[mode, link] for link in links], marker="o", markersize=4, label=mode)
    axes.set_xticks(range(len(links)), links, rotation=60, ha="right", fontsize="small")
    axes.set(ylabel="milliseconds per answer", yscale="log", title="An answer, by link and mode")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _bytes(rows: Sequence[dict[str, Any]]) -> Any:
    sending = [row for row in rows if row["bytes_up"]]
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    axes.barh([row["mode"] for row in sending], [row["bytes_up"] / 1024 for row in sending])
    axes.invert_yaxis()
    axes.set(xlabel="KiB up per answer, without framing", xscale="log", title=f"What goes up, at {rows[0]['link']}")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _figure_1(table_1: Sequence[dict[str, Any]]) -> Any:
    """CE-CoLLM, Fig. 1: what goes up of an answer, as bars, and how often the cloud is asked, as points."""
    shown = [line for line in table_1 if line["strategy"] in _FIGURE_1]
    places, labels = range(len(shown)), [f"{_FIGURE_1[line['strategy']]}\n{line['data']}" for line in shown]
    figure = new_figure(8.5, 4.5)
    axes = figure.add_subplot()
    axes.bar([place - 0.2 for place in places], [line["kib_up"] for line in shown], width=0.38, label="here")
    axes.bar(
        [place + 0.2 for place in places], [line.get("paper_kib_up", 0) for line in shown], width=0.38, label="paper"
    )
    axes.set(ylabel="KiB up per answer", yscale="log", title="Transmitted data, and requests to the cloud")
    axes.set_xticks(list(places), labels, fontsize="small")
    axes.legend(loc="lower left", fontsize="small")
    share = axes.twinx()
    share.plot(places, [100 * line["cloud_request_share"] for line in shown], "kD", markersize=5)
    published = [100 * line.get("paper_cloud_request_share", float("nan")) for line in shown]
    share.plot(places, published, "kx", markersize=8)
    share.set(ylabel="tokens asked of the cloud, % (diamonds; crosses: paper)", ylim=(0, 110))
    return figure


def _figure_3(confidences: Sequence[Sequence[float]]) -> Any:
    """CE-CoLLM, Fig. 3: how confident the early exits are."""
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    bins = [number / 20 for number in range(21)]
    names = [f"exit {number}" for number in range(1, len(confidences) + 1)]
    shares = [[1 / len(of_exit)] * len(of_exit) for of_exit in confidences]
    axes.hist(list(confidences), bins=bins, weights=shares, label=names)
    axes.set(xlabel="confidence", ylabel="share of the tokens", yscale="log", title="Confidence of the early exits")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
