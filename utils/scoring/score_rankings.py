"""Scores of the rankings of a search by the labels of a data set."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.data.retrieval_dataset import RetrievalDataset
from utils.scoring.compute_ap import compute_ap_by_binary, write_label_files
from utils.scoring.metrics import score_metrics
from utils.scoring.queries import Ranks, score_queries
from utils.scoring.report import ranking_file, write_ranking
from utils.scoring.revisited_protocol import score_protocols
from utils.scoring.run_files import ScoredRanking
from utils.scoring.scores import ProtocolScores, Scores


def score(data: RetrievalDataset, ranks: Sequence[Ranks], metrics: Sequence[str] = ()) -> Scores:
    """Return the scores of rankings under the protocols of a data set.

    Args:
        data: data set with queries and labels.
        ranks: ranks of the labelled images, per query.
        metrics: names of metrics beside the average precision; the data set's if empty.
    """
    metrics = metrics or data.metrics
    if data.protocols:
        by_name = {query.name: of_query for query, of_query in zip(data.queries, ranks, strict=True)}
        protocols = score_protocols(data.protocols, by_name, metrics)
        return Scores({name: scores for name, scores in protocols.items()})  # noqa: C416  keys may be None
    of_queries = score_metrics(data.queries, ranks, metrics)
    return Scores({None: ProtocolScores(score_queries(data.queries, ranks), of_queries)})


def score_by_binary(
    data: RetrievalDataset, rankings: Iterable[ScoredRanking], eval_binary: Path, scores: Scores
) -> Scores:
    """Return scores with the average precision per query that VGG's compiled program prints.

    The program reads label files that are rewritten from the parsed labels, because it does not strip
    carriage returns and blanks.

    Args:
        data: data set without named protocols.
        rankings: rankings of `named_rankings`.
        eval_binary: the program.
        scores: scores of the same rankings, of which the metrics are kept.

    Raises:
        UserError: the program cannot be run or fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for ranking in rankings:
            write_ranking(folder, ranking.query, ranking.images)
        precisions = {
            query.name: compute_ap_by_binary(
                eval_binary,
                write_label_files(folder, query.name, query.good, query.ok, query.junk),
                ranking_file(folder, query.name),
            )
            for query in data.queries
        }
    return Scores({None: ProtocolScores(precisions, scores.protocols[None].metrics)})


def named_rankings(
    data: RetrievalDataset, names: Sequence[str], rankings: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[ScoredRanking]:
    """Yield the ranking of each query with the names of the query and of the images.

    Args:
        data: data set with queries.
        names: names of the database images.
        rankings: indices of all images by rank and their similarities, per query.
    """
    for query, (ranking, similarities) in zip(data.queries, rankings, strict=True):
        yield ScoredRanking(query.name, [names[index] for index in ranking], similarities)
