"""Copies of the collections in Qdrant Edge, taken while another process writes to them, and read through before they are relied on."""

from __future__ import annotations

from pathlib import Path

from core import files
from core.errors import VectorsUnavailable
from core.vectors import edge_repair
from core.vectors.edge_gate import copying
from core.vectors.edge_shards import standing


def copy_collections(vectors: Path, target: Path) -> dict[str, int]:
    """Each collection as it is at one moment, into the folder `target`. Returns their points. Raises OSError, VectorsUnavailable.

    Writes wait while a collection is copied, searches do not. What is copied is what a kill at that moment would leave: points that
    are in the journal alone come back when it is loaded, as it is here, by a process of its own.
    """
    target.mkdir(mode=0o700)
    points = {}
    for collection in sorted(standing(vectors)) if vectors.is_dir() else []:
        copied = target / collection
        with copying(vectors):
            path = standing(vectors).get(collection)
            if path is None:
                continue
            files.copy_tree_sparse(path, copied)
        outcome = edge_repair.audited(copied)
        if outcome.wrong is not None:
            raise VectorsUnavailable(f"The copy of {collection} is not whole: {outcome.wrong}")
        points[collection] = outcome.points
    return points
