"""The scores of each query as a table in CSV."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from utils.files.writing import replace_file
from utils.scoring.scores import ProtocolScores, Scores

COLUMNS = ("system", "search", "protocol", "query", "AP")
"""First columns; one column per metric follows. A protocol without name is empty."""


def write_score_table(path: Path, scores: Mapping[str, Mapping[str, Scores]]) -> None:
    """Write one row per system, search, protocol and query, with fractions; empty for undefined scores.

    Args:
        path: the file to write.
        scores: scores per system, which is a pooling or a run file, then per search.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    protocols = [protocol for searches in scores.values() for protocol in _protocols(searches)]
    metrics = dict.fromkeys(metric for *_, of_protocol in protocols for metric in of_protocol.metrics)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(metric.removeprefix("m") for metric in metrics)])
    for system, searches in scores.items():
        for search, protocol, of_protocol in _protocols(searches):
            for query, precision in of_protocol.average_precisions.items():
                by_metric = [of_protocol.metrics[metric][query] for metric in metrics]
                values = ["" if math.isnan(value) else value for value in (precision, *by_metric)]
                writer.writerow([system, search, protocol, query, *values])
    with replace_file(path) as file:
        file.write(text.getvalue().encode())


def _protocols(searches: Mapping[str, Scores]) -> Iterator[tuple[str, str, ProtocolScores]]:
    for search, scores in searches.items():
        for protocol, of_protocol in scores.protocols.items():
            yield search, protocol or "", of_protocol
