"""Several poolings side by side, with intervals that say whether a difference is more than luck."""

from collections.abc import Mapping

import numpy as np

from utils.scoring.bootstrap import CONFIDENCE, Difference, paired_bootstrap
from utils.scoring.evaluate import Scores, average_precisions
from utils.scoring.report import mean_average_precision

Compared = Mapping[str, Mapping[str, Scores]]
"""By pooling, then by search."""


def differences(scores: Compared, seed: int) -> dict[str, dict[str, dict[str, Difference]]]:
    """How much better in mAP each pooling but the first is than the first.

    Args:
        scores: of the same queries.
        seed: of the bootstrap.

    Returns:
        By pooling, by search, then by protocol ("" where the set has none).
    """
    first, *others = scores
    found: dict[str, dict[str, dict[str, Difference]]] = {}
    for pooling in others:
        found[pooling] = {}
        for search, of_first in scores[first].items():
            of_other = average_precisions(scores[pooling][search])
            found[pooling][search] = {
                protocol: paired_bootstrap(
                    np.array([precisions[query] for query in precisions]),
                    np.array([of_other[protocol][query] for query in precisions]),
                    seed,
                )
                for protocol, precisions in average_precisions(of_first).items()
            }
    return found


def for_json(
    found: Mapping[str, Mapping[str, Mapping[str, Difference]]],
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """What results.json holds of the differences, as fractions."""
    return {
        pooling: {
            search: {protocol: change._asdict() for protocol, change in protocols.items()}
            for search, protocols in of_pooling.items()
        }
        for pooling, of_pooling in found.items()
    }


def format_comparison(scores: Compared, found: Mapping[str, Mapping[str, Mapping[str, Difference]]]) -> str:
    """A table of mAP in percent for each search and protocol, a line a pooling, differences behind.

    Args:
        scores: as `differences` takes them.
        found: what it returns.
    """
    first, *_ = scores
    lines = []
    for search, of_first in scores[first].items():
        for protocol in average_precisions(of_first):
            title = ", ".join(part for part in (search, protocol) if part)
            lines.append(f"{title}: mAP, difference to {first} and its {CONFIDENCE:.0%} interval")
            for pooling, searches in scores.items():
                mean = mean_average_precision(average_precisions(searches[search])[protocol])
                line = f"{pooling:<6}{100 * mean:>6.1f}"
                if pooling in found:
                    change = found[pooling][search][protocol]
                    line += f"{100 * change.mean:>+8.1f}  [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
                lines.append(line)
    return "\n".join(lines)
