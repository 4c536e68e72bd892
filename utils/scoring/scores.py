"""Scores of one search, per protocol and query."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProtocolScores:
    """Scores under one protocol, in fractions; NaN for a query without positives."""

    average_precisions: dict[str, float]
    """Average precision per query."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Score per metric, such as `mP@10`, then per query."""

    def by_name(self) -> dict[str, dict[str, float]]:
        """Return the scores of each query by the name of their mean: the average precisions are `mAP`."""
        return {"mAP": self.average_precisions, **self.metrics}

    def means(self) -> dict[str, float]:
        """Return `mAP` and each metric, averaged over the queries with positives; NaN if there are none."""
        return {name: mean_over_queries(per_query) for name, per_query in self.by_name().items()}


@dataclass(frozen=True)
class Scores:
    """Scores of one search, per protocol.

    Oxford's evaluation has one protocol, whose name is None; the revisited evaluation has three, and Google
    Landmarks has two.
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
            means = {f"{name}{suffix}": mean for name, mean in scores.means().items()}
            return {**means, f"AP{suffix}": scores.average_precisions}
        return {
            f"protocols{suffix}": {
                str(protocol): {**scores.means(), "AP": scores.average_precisions}
                for protocol, scores in self.protocols.items()
            }
        }

    def _lines(self, scores: ProtocolScores) -> Iterator[str]:
        """Yield the lines of the original, and one per metric.

        The original prints `name: percent` per query, 20 dashes and `Mean: percent`.
        """
        for query, precision in scores.average_precisions.items():
            yield f"{query}: {100 * precision:.2f}"
        yield "-" * 20
        for name, mean in scores.means().items():
            yield f"{'Mean' if name == 'mAP' else name}: {100 * mean:.1f}"

    def _table(self) -> Iterator[str]:
        """Yield the lines of a table of means in percent: one row per protocol.

        Protocols are named by their first letters, or by their names if two begin with the same letter.
        """
        rows = {str(protocol): scores.means() for protocol, scores in self.protocols.items()}
        letters = {protocol: protocol[0].upper() for protocol in rows}
        names = letters if len(set(letters.values())) == len(rows) else {name: name for name in rows}
        first = max(2, *map(len, names.values()))
        widths = {title: max(6, len(title)) for title in next(iter(rows.values()))}
        yield " ".join([" " * first, *(f"{title:>{width}}" for title, width in widths.items())])
        for protocol, means in rows.items():
            values = [f"{100 * mean:>{widths[title]}.1f}" for title, mean in means.items()]
            yield " ".join([f"{names[protocol]:<{first}}", *values])


def mean_over_queries(values: Mapping[str, float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values.values() if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else float("nan")
