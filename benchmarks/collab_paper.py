"""CE-CoLLM's Tables I and II, beside what its workloads and our scenes take on the virtual clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..datasets.link_traces import parse_link
from .collab_cells import Taken
from .collab_clock import VirtualLink
from .collab_contenders import HIDDEN, IMAGE, Contender, replay
from .collab_profiles import Profile
from .collab_rows import mean
from .collab_statistical import THRESHOLDS, Workload, answers

# Of each workload, as in the paper.
ANSWERS = 100
# A data centre's neighbour; the paper does not say what its link was.
PAPER_LINK = "300Mbps,5ms"

NAIVE, COLLABORATIVE = "naive", "collaborative"
_STRATEGIES = {
    "cloud": Contender("cloud", "cloud", THRESHOLDS, IMAGE),
    NAIVE: Contender("naive", "naive", THRESHOLDS, HIDDEN, "float32"),
    "standalone": Contender("standalone", "standalone", THRESHOLDS),
    COLLABORATIVE: Contender("ce", "ce", THRESHOLDS),
}
# Seconds for 100 prompts: total, cloud, edge, communication (Table I).
_TABLE_1 = {
    "Alpaca": ((370.166, 369.799, 0, 0.367), (3371.761, 253.358, 241.428, 2876.975),
               (201.574, 0, 201.574, 0), (319.057, 112.723, 192.204, 14.130)),
    "XSum": ((392.466, 392.012, 0, 0.454), (19108.662, 271.661, 411.340, 18425.868),
             (221.388, 0, 221.388, 0), (375.999, 60.652, 258.383, 56.963)),
}  # fmt: skip
# Of an answer: what went up, and the share of tokens that the cloud was asked for (Fig. 1 and section IV-A).
_PUBLISHED_UP = {
    "Alpaca": {
        "naive": {"paper_kib_up": 112_128.0, "paper_cloud_request_share": 1.0},
        "ce": {"paper_kib_up": 956.62, "paper_cloud_request_share": 0.4958},
    },
    "XSum": {
        "naive": {"paper_kib_up": 673_520.03, "paper_cloud_request_share": 1.0},
        "ce": {"paper_kib_up": 3763.61, "paper_cloud_request_share": 0.2773},
    },
}
# Score of standalone, collaborative, cloud (Table II).
_TABLE_2 = {
    "BoolQ (EM)": (0.4900, 0.6580, 0.6460),
    "QuAC (F1)": (0.2740, 0.2890, 0.2910),
    "IMDB (EM)": (0.6840, 0.7240, 0.7240),
    "XSum (Rouge-L)": (0.1917, 0.2250, 0.2275),
}


def replay_workload(workload: Workload, profile: Profile, count: int = ANSWERS) -> dict[str, list[Taken]]:
    """So many answers of a workload by each of the paper's strategies."""
    shape = parse_link(PAPER_LINK)
    return {
        contender.name: [
            Taken.of(replay(contender, answer, profile, VirtualLink(shape), max_tokens=workload.tokens))
            for answer in answers(workload, count)
        ]
        for contender in _STRATEGIES.values()
    }


def table_1(workloads: dict[str, dict[str, list[Taken]]], ours: Mapping[str, Sequence[Taken]]) -> list[dict[str, Any]]:
    """Seconds for 100 answers. workloads: of `replay_workload`, by name; ours: our own scenes by contender.

    In `ours_total_s / cloud` and `paper_total_s / cloud` machine and link cancel out.
    """
    table: list[dict[str, Any]] = []
    for name, published in _TABLE_1.items():
        for (strategy, contender), paper_s in zip(_STRATEGIES.items(), published, strict=True):
            line = _line(name, strategy, workloads[name][contender.name], workloads[name]["cloud"])
            told = dict(zip(("paper_total_s", "paper_cloud_s", "paper_edge_s", "paper_comm_s"), paper_s, strict=True))
            told |= {"paper_total / cloud": paper_s[0] / published[0][0]}
            table.append(line | told | _PUBLISHED_UP[name].get(contender.name, {}))
    return table + [
        _line("driving scenes", strategy, ours[contender.name], ours["cloud"])
        for strategy, contender in _STRATEGIES.items()
    ]


def table_2(accuracy: dict[str, float]) -> list[dict[str, Any]]:
    """Scores. accuracy: of our own modes."""
    names = ("standalone", "collaborative", "cloud")
    published = [
        {"task": task, **dict(zip(names, scores, strict=True)), "collaborative - cloud": scores[1] - scores[2]}
        for task, scores in _TABLE_2.items()
    ]
    ours = {"task": "driving scenes (action and reason)", "standalone": accuracy["standalone"]}
    ours |= {"collaborative": accuracy["ce"], "cloud": accuracy["cloud"]}
    return [*published, {**ours, "collaborative - cloud": accuracy["ce"] - accuracy["cloud"]}]


def _line(data: str, strategy: str, taken: Sequence[Taken], cloud: Sequence[Taken]) -> dict[str, Any]:
    """Milliseconds per answer are tenths of seconds per 100."""
    seconds = {f"{part}_s": mean(taken, f"{part}_ms") / 10 for part in ("total", "cloud", "edge")}
    return {
        "data": data,
        "strategy": strategy,
        **seconds,
        "comm_s": mean(taken, "link_ms") / 10,
        "total / cloud": mean(taken, "total_ms") / mean(cloud, "total_ms"),
        "kib_up": mean(taken, "bytes_up") / 1024,
        "cloud_request_share": sum(each.cloud_requests for each in taken) / sum(len(each.tokens) for each in taken),
    }
