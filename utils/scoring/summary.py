"""The printed text and the values in results.json of the scores of an evaluation."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from utils.scoring.comparison import Comparison, compare_searches, differences_for_json
from utils.scoring.report import format_scores, scores_for_json
from utils.scoring.scores import Scores
from utils.search.run_searches import PLAIN

log = logging.getLogger(__name__)


class Summary(NamedTuple):
    """The scores of an evaluation as text and for results.json."""

    text: str
    values: dict[str, object]


def summarise(
    scores: Mapping[str, Mapping[str, Scores]],
    seed: int,
    metrics: Sequence[str],
    protocol: str,
    reranked: bool = False,
) -> Summary:
    """Return the scores of the first system, the comparison of several systems, and the protocol.

    Queries without positives are logged.

    Args:
        scores: scores per system, which is a pooling or a run file, then per search.
        seed: random seed of the intervals of differences.
        metrics: metrics to compare beside mAP.
        protocol: line that describes the protocol.
        reranked: whether to compare the searches of the first system, too.
    """
    first = next(iter(scores.values()))
    if without := first[PLAIN].without_positives():
        log.warning("note: queries without positives are left out of the mean: %s", ", ".join(without))
    text, values = format_scores(first), {"protocol": protocol, **scores_for_json(first)}
    if len(scores) > 1:
        comparison = Comparison.from_scores(scores, seed, metrics)
        text, values = comparison.format(), values | comparison.for_json()
    if reranked:
        searches = compare_searches(first, seed, metrics)
        text = f"{text}\n{searches.format()}"
        values["differences_to_search"] = differences_for_json(searches)
    return Summary(f"{text}\n{protocol}", values)
