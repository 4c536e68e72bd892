"""Comparison of poolings, or of searches, with confidence intervals of their differences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from utils.scoring.bootstrap import CONFIDENCE, Difference, paired_bootstrap
from utils.scoring.report import scores_for_json
from utils.scoring.scores import Scores

ScoresPerSearch = Mapping[str, Scores]

SEARCHES = "searches"
"""Title of the comparison of searches."""


@dataclass(frozen=True)
class Comparison:
    """Scores of several poolings on the same queries, and their differences to the first pooling."""

    scores: Mapping[str, ScoresPerSearch]
    """Per pooling, then per search."""
    differences: dict[str, dict[str, dict[str | None, Difference]]]
    """Difference in mAP to the first pooling, per other pooling, search and protocol."""

    @classmethod
    def from_scores(cls, scores: Mapping[str, ScoresPerSearch], seed: int) -> "Comparison":
        """Compare each pooling with the first one.

        Args:
            scores: scores per pooling, then per search, on the same queries.
            seed: random seed of the bootstrap.
        """
        first, *remaining = scores
        differences = {
            pooling: {
                search: _differences(first_scores, scores[pooling][search], seed)
                for search, first_scores in scores[first].items()
            }
            for pooling in remaining
        }
        return cls(scores, differences)

    def for_json(self) -> dict[str, object]:
        """Return the comparison in the form of results.json, in fractions."""
        return {
            "compared": {pooling: scores_for_json(searches) for pooling, searches in self.scores.items()},
            "differences": {
                pooling: {search: _for_json(protocols) for search, protocols in searches.items()}
                for pooling, searches in self.differences.items()
            },
        }

    def format(self) -> str:
        """Return one table of mAP in percent per search and protocol, with one row per pooling."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        first, *_ = self.scores
        width = max(6, *(len(name) + 1 for name in self.scores))
        for search, first_scores in self.scores[first].items():
            for protocol in first_scores.protocols:
                title = search if protocol is None else f"{search}, {protocol}"
                yield f"{title}: mAP, difference to {first} and its {CONFIDENCE:.0%} interval"
                for pooling, searches in self.scores.items():
                    mean = searches[search].protocols[protocol].means()["mAP"]
                    line = f"{pooling:<{width}}{100 * mean:>6.1f}"
                    if pooling in self.differences:
                        change = self.differences[pooling][search][protocol]
                        interval = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
                        line += f"{100 * change.mean:>+8.1f}  {interval}"
                    yield line


def compare_searches(scores: ScoresPerSearch, seed: int) -> Comparison:
    """Compare each search with the plain search, which is the first one.

    Args:
        scores: scores per search.
        seed: random seed of the bootstrap.

    Returns:
        A comparison with the searches in place of the poolings, and with SEARCHES in place of the search.
    """
    return Comparison.from_scores({name: {SEARCHES: scores[name]} for name in scores}, seed)


def differences_for_json(comparison: Comparison) -> dict[str, object]:
    """Return the differences of `compare_searches` in the form of results.json, per search."""
    differences = comparison.differences
    return {search: _for_json(protocols[SEARCHES]) for search, protocols in differences.items()}


def _differences(first: Scores, second: Scores, seed: int) -> dict[str | None, Difference]:
    """Return the difference in mAP per protocol, with the scores paired by query name."""
    differences = {}
    for protocol, scores in first.protocols.items():
        precisions = scores.average_precisions
        second_precisions = second.protocols[protocol].average_precisions
        differences[protocol] = paired_bootstrap(
            np.array([precisions[query] for query in precisions]),
            np.array([second_precisions[query] for query in precisions]),
            seed,
        )
    return differences


def _for_json(protocols: Mapping[str | None, Difference]) -> dict[str, object]:
    """Return the differences of one search, per protocol, or the single one of a protocol without name."""
    if None in protocols:
        return protocols[None]._asdict()
    return {str(protocol): change._asdict() for protocol, change in protocols.items()}
