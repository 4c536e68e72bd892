"""Comparison of poolings, or of searches, with confidence intervals of their differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.scoring.bootstrap import CONFIDENCE, Difference, paired_bootstrap
from utils.scoring.report import scores_for_json
from utils.scoring.scores import Scores

ScoresPerSearch = Mapping[str, Scores]

DifferencePerScore = Mapping[str, Difference]
"""Difference per name of a score: mAP and the metrics."""

SEARCHES = "searches"
"""Title of the comparison of searches."""


@dataclass(frozen=True)
class Comparison:
    """Scores of several poolings on the same queries, and their differences to the first pooling."""

    scores: Mapping[str, ScoresPerSearch]
    """Per pooling, then per search."""
    differences: dict[str, dict[str, dict[str | None, DifferencePerScore]]]
    """Differences to the first pooling, per other pooling, search and protocol."""
    names: tuple[str, ...] = ("mAP",)
    """Names of the scores that are compared."""

    @classmethod
    def from_scores(
        cls, scores: Mapping[str, ScoresPerSearch], seed: int, metrics: Sequence[str] = ()
    ) -> "Comparison":
        """Compare each pooling with the first one.

        Args:
            scores: scores per pooling, then per search, on the same queries.
            seed: random seed of the bootstrap.
            metrics: metrics to compare beside mAP.
        """
        first, *remaining = scores
        names = ("mAP", *dict.fromkeys(metrics))
        differences = {
            pooling: {
                search: _differences(first_scores, scores[pooling][search], seed, names)
                for search, first_scores in scores[first].items()
            }
            for pooling in remaining
        }
        return cls(scores, differences, names)

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
        """Return one table in percent per search, protocol and score, with one row per pooling."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        first, *_ = self.scores
        for search, first_scores in self.scores[first].items():
            for protocol in first_scores.protocols:
                title = search if protocol is None else f"{search}, {protocol}"
                for name in self.names:
                    yield f"{title}: {name}, difference to {first} and its {CONFIDENCE:.0%} interval"
                    yield from self._rows(search, protocol, name)

    def _rows(self, search: str, protocol: str | None, name: str) -> Iterator[str]:
        """Yield one line per pooling, with a score and its difference to the first pooling."""
        width = max(6, *(len(pooling) + 1 for pooling in self.scores))
        for pooling, searches in self.scores.items():
            mean = searches[search].protocols[protocol].means()[name]
            line = f"{pooling:<{width}}{100 * mean:>6.1f}"
            if pooling in self.differences:
                change = self.differences[pooling][search][protocol][name]
                interval = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
                line += f"{100 * change.mean:>+8.1f}  {interval}"
            yield line


def compare_searches(scores: ScoresPerSearch, seed: int, metrics: Sequence[str] = ()) -> Comparison:
    """Compare each search with the plain search, which is the first one.

    Args:
        scores: scores per search.
        seed: random seed of the bootstrap.
        metrics: metrics to compare beside mAP.

    Returns:
        A comparison with the searches in place of the poolings, and with SEARCHES in place of the search.
    """
    return Comparison.from_scores({name: {SEARCHES: scores[name]} for name in scores}, seed, metrics)


def differences_for_json(comparison: Comparison) -> dict[str, object]:
    """Return the differences of `compare_searches` in the form of results.json, per search."""
    differences = comparison.differences
    return {search: _for_json(protocols[SEARCHES]) for search, protocols in differences.items()}


def _differences(
    first: Scores, second: Scores, seed: int, names: Sequence[str]
) -> dict[str | None, DifferencePerScore]:
    """Return the differences per protocol, with the scores paired by query name."""
    differences: dict[str | None, DifferencePerScore] = {}
    for protocol, scores in first.protocols.items():
        by_name, second_by_name = scores.by_name(), second.protocols[protocol].by_name()
        differences[protocol] = {
            name: paired_bootstrap(
                np.array(list(by_name[name].values())),
                np.array([second_by_name[name][query] for query in by_name[name]]),
                seed,
            )
            for name in names
        }
    return differences


def _for_json(protocols: Mapping[str | None, DifferencePerScore]) -> dict[str, object]:
    """Return the differences of one search, per protocol unless the single protocol has no name."""
    by_protocol: dict[str | None, dict[str, object]] = {
        protocol: {**changes["mAP"]._asdict()}
        | {name: change._asdict() for name, change in changes.items() if name != "mAP"}
        for protocol, changes in protocols.items()
    }
    if None in by_protocol:
        return by_protocol[None]
    return {str(protocol): changes for protocol, changes in by_protocol.items()}
