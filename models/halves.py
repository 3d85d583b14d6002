"""Both halves of one model in one process, loaded and checked once: for evaluation and benches."""

from __future__ import annotations

from .answering import CloudAnswerer, EdgeAnswerer, cloud_answerer_of, edge_answerer_of
from .collaboration import Collaboration
from .loading import EdgeParts, checked_split, load_part


def both_answerers(model: str | None = None) -> tuple[EdgeAnswerer, CloudAnswerer]:
    """What an edge and a cloud would load of a model, on the same weights; the edge tells no drafts.

    Raises ModelError or SplitError as they do.
    """
    checkpoint, reader = load_part(model, "everything")
    encoder, split = checked_split(checkpoint, reader)
    edge = EdgeParts(checkpoint, reader, encoder, split.first, split.second)
    return (
        edge_answerer_of(edge, Collaboration(draft=False)),
        cloud_answerer_of(checkpoint, reader, encoder, split),
    )
