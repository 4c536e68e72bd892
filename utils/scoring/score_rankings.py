"""Scores of the rankings of a search by the labels of a data set."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.data.oxford_paris import RetrievalDataset
from utils.file_names import RANKINGS_FOLDER
from utils.scoring.compute_ap import compute_ap_by_binary, write_label_files
from utils.scoring.queries import score_queries
from utils.scoring.report import ranking_file, write_rankings
from utils.scoring.revisited_protocol import score_protocols
from utils.scoring.scores import ProtocolScores, Scores
from utils.search.similarity import rank


def score(
    data: RetrievalDataset, names: Sequence[str], similarities: np.ndarray, eval_binary: Path | None = None
) -> Scores:
    """Return the scores of rankings by falling similarity, under the protocols of a data set.

    Args:
        data: data set with queries and labels.
        names: names of the database images, in the order of the columns.
        similarities: (Q, N).
        eval_binary: VGG's compiled program to score with, or None; only for data sets without named
            protocols.

    Raises:
        UserError: the program cannot be run or fails.
    """
    if data.protocols:
        protocols = score_protocols(data.protocols, names, similarities)
        return Scores({name: scores for name, scores in protocols.items()})  # noqa: C416  keys may be None
    if eval_binary is None:
        precisions = score_queries(data.queries, names, similarities)
    else:
        precisions = score_by_binary(data, names, similarities, eval_binary)
    return Scores({None: ProtocolScores(precisions)})


def score_by_binary(
    data: RetrievalDataset, names: Sequence[str], similarities: np.ndarray, eval_binary: Path
) -> dict[str, float]:
    """Return the average precision per query that VGG's compiled program prints.

    The program reads label files that are rewritten from the parsed labels, because it does not strip
    carriage returns and blanks.

    Raises:
        UserError: the program cannot be run or fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_rankings(folder, named_rankings(data, names, similarities))
        return {
            query.name: compute_ap_by_binary(
                eval_binary,
                write_label_files(folder, query.name, query.good, query.ok, query.junk),
                ranking_file(folder / RANKINGS_FOLDER, query.name),
            )
            for query in data.queries
        }


def named_rankings(
    data: RetrievalDataset, names: Sequence[str], similarities: np.ndarray
) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each query and its ranking as image names, the most similar first."""
    for query, row in zip(data.queries, similarities, strict=True):
        yield query.name, [names[index] for index in rank(row[np.newaxis])[0]]
