"""Evaluate image retrieval on Oxford5k, Paris6k, their revisited forms, Mini or any folder of their layout.

One descriptor is computed per image of the data set and per query box. For each query, the images are ranked
by the dot product of their descriptors with the query's. The rankings before and after query expansion are
scored by average precision. Scores go to standard output, all messages to standard error.

    python Measure_OxfordParis.py --dataset Oxford
    torchrun --nproc-per-node 4 Measure_OxfordParis.py --dataset Oxford105k --descriptors descriptors
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.poolings.registry import PoolingName
from utils.data.open_dataset import open_dataset
from utils.data.retrieval_dataset import RetrievalDataset, check_queries
from utils.descriptors.describe import Descriptors, describe
from utils.descriptors.rows import split_columns
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.shared_store import open_shared_store
from utils.device import choose_device
from utils.errors import UserError
from utils.figures.drawing import RESULTS_SHOWN
from utils.figures.evaluation import Curve, draw_figures, query_curves
from utils.files.writing import check_writable
from utils.images.batches import Loading
from utils.options.options_class import option, options_class
from utils.options.parser import called_with, parse_options
from utils.options.saved_options import to_json
from utils.options.shared import DescriptorOptions, RunOptions, SearchOptions, StoreOptions
from utils.processes import ALONE, Processes, is_first_process, join_processes, log_level, process_device
from utils.program.run_command import run_command
from utils.scoring import report
from utils.scoring.compute_ap import check_program
from utils.scoring.metrics import MetricNames
from utils.scoring.protocol import protocol_line
from utils.scoring.queries import labelled_images, ranks_by_name
from utils.scoring.run_files import check_run
from utils.scoring.score_rankings import named_rankings, score, score_by_binary
from utils.scoring.score_runs import check_run_options, score_runs
from utils.scoring.scores import Scores
from utils.scoring.summary import summarise
from utils.search.approximate import check_search
from utils.search.reranking.registry import RerankInputs, build_rerankers, check_rerankers
from utils.search.reranking.reranker import Reranker
from utils.search.run_searches import (
    PLAIN,
    SearchResult,
    SearchResults,
    approximates_neighbours,
    search,
)
from utils.text import log_to_stderr
from utils.timing import add_seconds, timed
from utils.weights.check_on_images import note_preprocessing
from utils.weights.networks import load_network

log = logging.getLogger(__name__)


@options_class
class MeasureOptions(DescriptorOptions, RunOptions, StoreOptions, SearchOptions):
    """Options of an evaluation."""

    title = "evaluation"

    dataset: str = option(
        default="Oxford",
        help="folder in --datasets-dir, such as Oxford, Paris or ROxford, or any folder; Mini is generated",
        kw_only=False,
    )
    boxes: bool = option(default=True, help="describe complete query images", flag="--no-boxes")
    compare: tuple[PoolingName, ...] = option(
        default=(),
        help="poolings to use instead of --pooling, such as ra,rmac,gem; the scores are printed side by side",
        metavar="POOLING,...",
    )
    metrics: tuple[str, ...] = option(
        default=(),
        help="scores beside mAP, such as mAP@100,recall@10,mP@10; mP@1,mP@5,mP@10 for revisited sets if not "
        "given",
        valid=MetricNames(),
        metavar="METRIC,...",
    )
    skip_bad_images: bool = option(default=False, help="leave out unreadable images")
    eval_binary: Path | None = option(default=None, help="VGG's compiled compute_ap, to score with")
    score_run: tuple[Path, ...] = option(
        default=(),
        help="run files of TREC to score instead of a network; several are compared with the first one",
        metavar="FILE,...",
    )
    output: Path | None = option(
        default=None,
        help="folder for results.json, scores.csv, ranking.run, rankings/ and, unless --descriptors keeps "
        "them, descriptors.npz",
    )
    figures: Path | None = option(default=None, help="folder for figures of results, curves and attention")

    @property
    def poolings(self) -> tuple[PoolingName, ...]:
        """Poolings of the descriptors, from --compare or, if it is not given, --pooling."""
        return self.compare or (self.pooling,)

    def check(self) -> None:
        """Check that --compare names different poolings, and the options beside --score-run.

        Raises:
            UserError: an option is invalid.
        """
        if self.score_run:
            check_run_options(self.score_run, self.output, to_json(self))
        if self.compare and (len(self.compare) < 2 or len(set(self.compare)) < len(self.compare)):
            raise UserError(f"compare {','.join(self.compare)} is not two or more different poolings")


def evaluate(options: MeasureOptions) -> dict[str, object]:
    """Evaluate one network, or the rankings in --score-run, on one data set.

    Processes share images and search; the first one scores.

    Returns:
        The contents of results.json: settings, average precisions as fractions, versions, and seconds per
        stage. All processes but the first return an empty dict.

    Raises:
        UserError: an option, an image or a file is invalid, or a file cannot be written.
    """
    check_paths(options)
    if options.score_run:
        return evaluate_runs(options) if is_first_process() else {}
    device = choose_device(process_device(options.device))
    loading = Loading.on(device, options.longer_side, options.batch_size, options.workers)
    seconds: dict[str, float] = {}
    with join_processes(device) as processes:
        with timed(seconds, "load"):
            data = open_dataset(options.dataset, options.datasets_dir, options.seed, options.boxes)
            check_job(options, data)
            network = load_network(options, options.poolings, device)
            if processes.leads:
                note_preprocessing(options, list(data.images.values()))
            store = None
            if options.descriptors is not None:
                made_with = descriptor_settings(options, options.poolings)
                store = open_shared_store(options.descriptors, made_with, options.store_precision, processes)

        # One descriptor per query box and per database image.
        with timed(seconds, "queries"):
            queries = describe(network, data.query_inputs(), loading, processes, title="queries", store=store)
        if options.compile:  # after the queries, since each size is compiled and most boxes differ in size
            network.backbone.compile_features()
        with timed(seconds, "images"):
            images, skip = data.database_inputs(), options.skip_bad_images
            database = describe(network, images, loading, processes, store=store, skip_bad_images=skip)
        names = readable_names(data, database)

        # For each pooling: search, and run the further searches.
        labelled = labelled_images(data, names)
        readable = [image for index, image in enumerate(images) if index not in database.unreadable]
        inputs = RerankInputs(lambda: network, data.query_inputs(), readable, loading)
        rerankers = build_rerankers(options, inputs, options.seed)
        searches = search_by_poolings(options, labelled, queries, database, seconds, processes, rerankers)
    if not processes.leads:
        return {}

    # Score each ranking, write, print and draw.
    results = score_searches(options, data, names, labelled, searches, seconds)
    protocol = protocol_line(data, options)
    text, values = summarise(results.scores, options.seed, options.metrics, protocol, bool(options.rerank))
    summary = {
        "settings": used_settings(options, loading, device),
        "images": len(names),
        "images_left_out": [str(error.path) for error in database.unreadable.values()],
        "queries": len(data.queries),
        **values,
        "recall": results.recalls,
        "seconds": seconds,
        "versions": report.versions(device),
    }
    print(text)
    if options.output is not None:  # after the scores are printed, since the disk may be full
        table = None if store is not None else report.descriptor_table(data, names, queries, database)
        rankings = named_rankings(data, names, results.plain.rankings())
        report.write_output(options.output, summary, results.scores, rankings, table)
    if options.figures is not None:
        draw_figures(
            options.figures, data, names, results.plain.found, results.curves, network, options.longer_side
        )
    return summary


def evaluate_runs(options: MeasureOptions) -> dict[str, object]:
    """Score the rankings in run files, print the scores and write them.

    Returns:
        The contents of results.json.

    Raises:
        UserError: a run is unreadable or for another data set, or a file cannot be written.
    """
    data = open_dataset(options.dataset, options.datasets_dir, options.seed)
    by_run = score_runs(data, options.score_run, options.metrics)
    scores = {name: {PLAIN: of_run} for name, of_run in by_run.items()}
    text, values = summarise(scores, options.seed, options.metrics, protocol_line(data))
    summary = {"settings": to_json(options), "queries": len(data.queries), **values}
    print(text)
    if options.output is not None:
        report.write_output(options.output, summary, scores, None, None)
    return summary


class Evaluation(NamedTuple):
    """Rankings and scores of all poolings."""

    scores: dict[str, dict[str, Scores]]
    """Scores by pooling and search."""
    recalls: dict[str, dict[str, float]]
    """Recall of the approximate index by pooling; empty for exact search."""
    curves: dict[str, dict[str, Curve]]
    """Precision over recall by title and query, for the figures."""
    plain: SearchResult
    """Result of the plain search with the first pooling."""


def search_by_poolings(
    options: MeasureOptions,
    labelled: Sequence[Mapping[str, int]],
    queries: Descriptors,
    database: Descriptors,
    seconds: dict[str, float],
    processes: Processes,
    rerankers: Sequence[Mapping[str, Reranker]],
) -> dict[str, SearchResults]:
    """Search by the descriptors of each pooling.

    Args:
        options: options of the evaluation.
        labelled: index of each labelled image by name, per query.
        queries: descriptors of the queries, the columns of all poolings beside each other.
        database: descriptors of the images, likewise.
        seconds: seconds by step, to which the time of each step is added.
        processes: processes that share an exact search; the first one searches an approximate index.
        rerankers: re-rankings by name, per pooling.

    Returns:
        Results per pooling; complete only in the first process.

    Raises:
        UserError: the index cannot be built.
    """
    if options.search != "exact":
        if not processes.leads:
            return {}
        processes = ALONE
    to_rank = [np.array(list(of_query.values()), np.int64) for of_query in labelled]
    shown = 0 if options.figures is None else RESULTS_SHOWN
    parts = zip(
        np.split(queries.rows[:], len(options.poolings), axis=1),
        split_columns(database.rows, len(options.poolings)),
        strict=True,
    )
    results = {}
    for pooling, (rows_to_find, rows), by_name in zip(options.poolings, parts, rerankers, strict=True):
        found = search(rows_to_find, rows, to_rank, options, options.seed, shown, processes, by_name)
        add_seconds(seconds, found.seconds)
        results[str(pooling)] = found
    return results


def score_searches(
    options: MeasureOptions,
    data: RetrievalDataset,
    names: Sequence[str],
    labelled: Sequence[Mapping[str, int]],
    searches: Mapping[str, SearchResults],
    seconds: dict[str, float],
) -> Evaluation:
    """Score the rankings of all poolings and searches.

    Args:
        options: options of the evaluation.
        data: the data set.
        names: names of the images that have descriptors.
        labelled: index of each labelled image by name, per query.
        searches: results per pooling.
        seconds: seconds by step, to which the time of scoring is added.

    Raises:
        UserError: the scoring program fails.
    """
    scores: dict[str, dict[str, Scores]] = {}
    curves: dict[str, dict[str, Curve]] = {}
    for pooling, results in searches.items():
        with timed(seconds, "scoring"):
            ranks = {
                name: ranks_by_name(labelled, result.found.ranks) for name, result in results.searches.items()
            }
            scores[pooling] = {
                name: score(data, of_search, options.metrics) for name, of_search in ranks.items()
            }
            if options.eval_binary is not None:
                for name, result in results.searches.items():
                    rankings = named_rankings(data, names, result.rankings())
                    by_python = scores[pooling][name]
                    scores[pooling][name] = score_by_binary(data, rankings, options.eval_binary, by_python)
        if options.figures is not None:
            drawn = {pooling: ranks[PLAIN]} if options.compare else ranks
            curves |= {title: query_curves(data, of_search) for title, of_search in drawn.items()}
    recalls = {pooling: results.recall for pooling, results in searches.items() if results.recall}
    return Evaluation(scores, recalls, curves, next(iter(searches.values())).searches[PLAIN])


def check_paths(options: MeasureOptions) -> None:
    """Check, before any work, that run files exist, outputs can be written and the program can be run.

    Raises:
        UserError: a run file is missing, a folder cannot be written to, or the program cannot be run.
    """
    for run in options.score_run:
        check_run(run)
    if options.eval_binary is not None:
        check_program(options.eval_binary)
    if options.output is not None:
        report.check_output(options.output)
    for folder in (options.descriptors, options.figures):
        if folder is not None:
            check_writable(folder)


def check_job(options: MeasureOptions, data: RetrievalDataset) -> None:
    """Check that the options suit the data set, and that each query's box lies in its image.

    Raises:
        UserError: an option does not suit the data set, or a query or its box is invalid.
    """
    if data.protocols and options.eval_binary is not None:
        raise UserError("--eval-binary does not know the protocols of this data set: leave it out")
    check_search(options.search, len(data.images))
    check_rerankers(options)
    if approximates_neighbours(options, len(data.images)):
        check_search("faiss-ivfpq", len(data.images), "leave out --exact-neighbours")
    check_queries(data, options.longer_side)


def readable_names(data: RetrievalDataset, database: Descriptors) -> list[str]:
    """Return the names of the images that have descriptors, and log the unreadable images."""
    for error in database.unreadable.values():
        log.warning("note: left out %s", error)
    return [name for index, name in enumerate(data.images) if index not in database.unreadable]


def used_settings(options: MeasureOptions, loading: Loading, device: torch.device) -> dict[str, object]:
    """Return the options, with the values that were chosen for the device in place of missing ones."""
    chosen = {
        "S": options.longer_side,
        "device": str(device),
        "batch_size": loading.batch_size,
        "workers": loading.workers,
    }
    return to_json(options) | chosen


main = called_with(MeasureOptions)(evaluate)
"""`evaluate` for Python callers, with the options as keyword arguments."""


def command_line(words: Sequence[str] | None = None) -> None:
    """Parse the words, or the command line of this process if there are none, and evaluate.

    Raises:
        UserError: an option is invalid, or as for `evaluate`.
    """
    evaluate(parse_options(MeasureOptions, __doc__.splitlines()[0], words))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
