"""Seconds to score 55 queries on 105,063 images, against a walk through their rankings as in VGG's program.

Similarities and labels are random. The original also writes each ranking to a file and starts a program.

    python -m benchmarks.scoring
"""

from functools import partial

import numpy as np

from benchmarks.timing import machine, time_in_turn
from utils.data.oxford_paris import Query
from utils.scoring.compute_ap import compute_ap
from utils.scoring.queries import score_queries
from utils.search.similarity import rank

QUERIES, IMAGES, LABELLED = 55, 105_063, 300
ROUNDS = 3


def report(rounds: int = ROUNDS) -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    names = [f"image_{place:06d}" for place in range(IMAGES)]
    similar = rng.standard_normal((QUERIES, IMAGES)).astype(np.float32)
    queries = []
    for number in range(QUERIES):
        labelled = [names[place] for place in rng.choice(IMAGES, LABELLED, replace=False)]
        good, ok, junk = (frozenset(part) for part in (labelled[:100], labelled[100:180], labelled[180:]))
        queries.append(Query(f"query{number}", "", (0, 0, 1, 1), good, ok, junk))

    def walk() -> dict[str, float]:
        return {
            query.name: compute_ap([names[place] for place in ranking], query.good, query.ok, query.junk)
            for query, ranking in zip(queries, rank(similar), strict=True)
        }

    def here() -> dict[str, float]:
        return score_queries(queries, names, similar)

    found: dict[str, dict[str, float]] = {}
    ways = {"ranking and walking through names": walk, "here": here}

    def keep(name: str) -> None:
        found[name] = ways[name]()

    seconds = time_in_turn({name: partial(keep, name) for name in ways}, rounds)
    if len({tuple(precisions.items()) for precisions in found.values()}) > 1:
        raise AssertionError("the two ways differ")
    print(f"| {QUERIES} queries, {IMAGES:,} images | seconds |")
    print("|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {time:.2f} |")


if __name__ == "__main__":
    print(machine())
    print()
    report()
