"""Scores of one search, per protocol and query."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProtocolScores:
    """Scores under one protocol, in fractions; NaN for a query without positives."""

    average_precisions: dict[str, float]
    """Average precision per query."""
    precisions: dict[int, dict[str, float]] = field(default_factory=dict)
    """Precision at k, per k, then per query; empty if the protocol has none."""

    def means(self) -> dict[str, float]:
        """Return `mAP` and each `mP@k` over the queries with positives; NaN if there are none."""
        at = {f"mP@{k}": mean_over_queries(per_query) for k, per_query in self.precisions.items()}
        return {"mAP": mean_over_queries(self.average_precisions), **at}


@dataclass(frozen=True)
class Scores:
    """Scores of one search, per protocol.

    Oxford's evaluation has one protocol, whose name is None; the revisited evaluation has three.
    """

    protocols: dict[str | None, ProtocolScores]

    @property
    def has_protocols(self) -> bool:
        """True if the protocols have names."""
        return None not in self.protocols

    def without_positives(self) -> list[str]:
        """Return the names of the queries without positives, followed by the name of the protocol, if any."""
        return [
            query if protocol is None else f"{query} ({protocol})"
            for protocol, scores in self.protocols.items()
            for query, precision in scores.average_precisions.items()
            if math.isnan(precision)
        ]

    def format(self) -> str:
        """Return the scores as text: one line per query for Oxford, or a table with one row per protocol."""
        if self.has_protocols:
            return "\n".join(self._table())
        return "\n".join(self._lines(self.protocols[None]))

    def for_json(self, suffix: str) -> dict[str, object]:
        """Return the scores in the form of results.json.

        Args:
            suffix: suffix of the keys, empty for the plain search.
        """
        if not self.has_protocols:
            scores = self.protocols[None]
            return {f"mAP{suffix}": scores.means()["mAP"], f"AP{suffix}": scores.average_precisions}
        return {
            f"protocols{suffix}": {
                str(protocol): {**scores.means(), "AP": scores.average_precisions}
                for protocol, scores in self.protocols.items()
            }
        }

    def _lines(self, scores: ProtocolScores) -> Iterator[str]:
        """Yield the lines that the original prints: `name: percent` per query, 20 dashes, `Mean: percent`."""
        for query, precision in scores.average_precisions.items():
            yield f"{query}: {100 * precision:.2f}"
        yield "-" * 20
        yield f"Mean: {100 * scores.means()['mAP']:.1f}"

    def _table(self) -> Iterator[str]:
        """Yield the lines of a table of means in percent: one row per protocol, named by its first letter."""
        rows = {str(protocol): scores.means() for protocol, scores in self.protocols.items()}
        titles = next(iter(rows.values()))
        yield " ".join(["  ", *(f"{title:>6}" for title in titles)])
        for protocol, means in rows.items():
            yield " ".join([f"{protocol[0].upper():<2}", *(f"{100 * mean:>6.1f}" for mean in means.values())])


def mean_over_queries(values: Mapping[str, float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values.values() if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else float("nan")
