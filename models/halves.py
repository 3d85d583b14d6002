"""Both halves of one model in one process, loaded and checked once: for evaluation and benches."""

from __future__ import annotations

from .answering import CloudAnswerer, EdgeAnswerer
from .loading import checked_split, load_part
from .partitions import EdgePartition, WholeModel


def both_answerers(model: str | None = None) -> tuple[EdgeAnswerer, CloudAnswerer]:
    """What an edge and a cloud would load of a model, on the same weights; the edge tells no drafts.

    Raises ModelError or SplitError as they do.
    """
    checkpoint, reader = load_part(model, "everything")
    encoder, split = checked_split(checkpoint, reader)
    edge = EdgeAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality={},
        reader=reader,
        encoder=encoder,
        partition=EdgePartition(encoder, split.first, split.second, checkpoint.exits),
        modes={"edge": "standalone", "edge+cloud": "ce"},
        draft=False,
    )
    cloud = CloudAnswerer(
        model=checkpoint.name,
        model_hash=checkpoint.digest,
        quality={},
        reader=reader,
        encoder=encoder,
        whole=WholeModel(encoder, split.first, split.rest, split.head),
    )
    return edge, cloud
