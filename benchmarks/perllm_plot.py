"""PerLLM's Figs. 4 to 6 from a measurement: processing time, throughput and energy by edge model and network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bus.errors import RunError
from .perllm_cells import NETWORKS

# Its baselines and itself, our best, and the bound; every policy would make bars too thin to read.
_SHOWN = ("cloud-only", "edge-only", "active-inference", "cs-ucb-predicted", "greedy-delay", "shadow-price", "lp-bound")
_FIGURES = {
    "perllm-fig4-processing-time.png": [("latency_mean_s", "mean processing time, s")],
    "perllm-fig5-throughput.png": [("throughput_ratio", "tokens per second, of cloud-only's")],
    "perllm-fig6-energy.png": [
        ("joules_per_request", "joules a request, physical"),
        ("billed_joules_per_request", "joules a request, waiting billed"),
    ],
}


def plot_perllm(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write a PNG for each of the paper's figures; RunError where the folder cannot be written."""
    # Imported here: only who plots needs it, and it comes with the extra `train`.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = {(row["network"], row["model"], row["policy"]): row for row in result["cells"]}
    models = [name for name in result["table_1"][0] if name != "method"]
    written = []
    for file, columns in _FIGURES.items():
        figure = Figure(figsize=(4.6 * len(NETWORKS), 3.2 * len(columns)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(columns), len(NETWORKS), sharey="row", squeeze=False)
        for line, (column, label) in zip(panels, columns, strict=True):
            for panel, network in zip(line, NETWORKS, strict=True):
                for place, policy in enumerate(_SHOWN):
                    heights = [cells[network, model, policy][column] for model in models]
                    offsets = [at + 0.8 * (place + 0.5) / len(_SHOWN) - 0.4 for at in range(len(models))]
                    panel.bar(offsets, heights, 0.8 / len(_SHOWN), label=policy, color=f"C{place}")
                panel.set_xticks(range(len(models)), models)
                panel.set_title(f"links {network}", fontsize="medium")
                panel.grid(axis="y", alpha=0.3)
            line[0].set_ylabel(label)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
        written.append(_save(figure, folder / file))
    return written


def _save(figure: Any, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror}): give another --plot") from error
    return path
