"""Seconds to score 55 queries on 105,063 images, compared with a loop over rankings as in VGG's program.

Similarities and labels are random. The original also writes each ranking to a file and starts a program,
which is not measured.

    python -m benchmarks.scoring
"""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.timing import machine, time_in_turn
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.scoring.compute_ap import compute_ap
from utils.scoring.queries import labelled_images, ranks_by_name, score_queries
from utils.search.similarity import rank, ranks_of_indices

QUERIES, IMAGES, LABELLED = 55, 105_063, 300
ROUNDS = 3


def report(rounds: int = ROUNDS) -> None:
    """Print the table.

    Raises:
        AssertionError: the two methods differ in a score.
    """
    rng = np.random.default_rng(0)
    names = [f"image_{index:06d}" for index in range(IMAGES)]
    similar = rng.standard_normal((QUERIES, IMAGES)).astype(np.float32)
    queries = []
    for number in range(QUERIES):
        labelled = [names[index] for index in rng.choice(IMAGES, LABELLED, replace=False)]
        good, ok, junk = (frozenset(part) for part in (labelled[:100], labelled[100:180], labelled[180:]))
        queries.append(Query(f"query{number}", "", (0, 0, 1, 1), good, ok, junk))

    def walk() -> dict[str, float]:
        return {
            query.name: compute_ap([names[index] for index in ranking], query.good, query.ok, query.junk)
            for query, ranking in zip(queries, rank(similar), strict=True)
        }

    def here() -> dict[str, float]:
        labelled = labelled_images(RetrievalDataset(Path(), {}, queries, {}), names)
        ranks = [
            ranks_of_indices(np.array(list(of_query.values())), row)
            for of_query, row in zip(labelled, similar, strict=True)
        ]
        return score_queries(queries, ranks_by_name(labelled, ranks))

    scores: dict[str, dict[str, float]] = {}
    functions = {"ranking and walking through names": walk, "here": here}

    def keep(name: str) -> None:
        scores[name] = functions[name]()

    seconds = time_in_turn({name: partial(keep, name) for name in functions}, rounds)
    if len({tuple(precisions.items()) for precisions in scores.values()}) > 1:
        raise AssertionError("the two methods differ")
    print(f"| {QUERIES} queries, {IMAGES:,} images | seconds |")
    print("|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {time:.2f} |")


if __name__ == "__main__":
    print(machine())
    print()
    report()
