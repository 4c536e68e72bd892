"""Evaluates image retrieval on Oxford5k, Paris6k, their revisited forms, Mini or any folder of their layout.

Every image of the data set and every query box becomes one descriptor; each query ranks all images by the
dot product with its own; the ranking is scored by average precision, once as it is and once after query
expansion. The scores go to standard output, everything else to standard error.

    python Measure_OxfordParis.py --dataset Oxford
    torchrun --nproc-per-node 4 Measure_OxfordParis.py --dataset Oxford105k --descriptors descriptors
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from models.attention import Activation
from models.backbones import BACKBONES, DEFAULT_BACKBONE
from models.compared_poolings import ComparedPoolings
from models.retrieval_network import Pooling
from utils.data.mini import prepare_mini
from utils.data.open_dataset import open_dataset
from utils.data.oxford_paris import check_queries, find_dataset
from utils.descriptors.describe import describe
from utils.descriptors.rows import columns
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import DescriptorStore, StorePrecision, open_store
from utils.device import PRECISIONS, choose_device, compiled, suitable_batch_size, suitable_workers
from utils.errors import UserError, run_command
from utils.figures.evaluation import Curve, draw_figures, query_curves
from utils.file_names import DATASETS_DIR, MINI, WEIGHTS_DIR
from utils.files.paths import user_path
from utils.files.writing import check_writable
from utils.images.loading import Picture, UnreadableImageError
from utils.options import arguments, evaluation_arguments
from utils.processes import Ranks, joined_ranks, launched_device, log_level
from utils.scoring import comparison, report
from utils.scoring.compute_ap import check_program
from utils.scoring.evaluate import (
    PLAIN,
    Scores,
    for_results,
    format_scores,
    named_rankings,
    score,
    searches,
    without_positives,
)
from utils.search.approximate import (
    SearchKind,
    build_index,
    check_search,
    report_left_out,
    report_recall,
    similarities_by,
)
from utils.search.database_augmentation import augment_database
from utils.search.similarity import similarities
from utils.text import log_to_stderr
from utils.weights.networks import load_network

log = logging.getLogger(__name__)


def main(
    dataset: str,
    *,
    datasets_dir: str | Path = DATASETS_DIR,
    weights_dir: str | Path = WEIGHTS_DIR,
    backbone: str = DEFAULT_BACKBONE,
    pooling: Pooling = evaluation_arguments.POOLING,
    compare: Sequence[Pooling] = (),
    whiten: bool = True,
    S: int = arguments.LONGER_SIDE,
    L: int = arguments.LEVELS,
    activation: Activation = arguments.ACTIVATION,
    scales: Sequence[float] = evaluation_arguments.SCALES,
    search: SearchKind = evaluation_arguments.SEARCH,
    qe: int = evaluation_arguments.EXPANSION,
    alpha: float = evaluation_arguments.ALPHA,
    dba: int = evaluation_arguments.AUGMENTATION,
    diffusion: int = evaluation_arguments.DIFFUSION,
    diffusion_alpha: float = evaluation_arguments.DIFFUSION_ALPHA,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    compile: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = arguments.SEED,
    skip_bad_images: bool = False,
    eval_binary: str | Path | None = None,
    descriptors: str | Path | None = None,
    store_precision: StorePrecision = evaluation_arguments.STORE_PRECISION,
    output: str | Path | None = None,
    figures: str | Path | None = None,
) -> dict[str, object]:
    """Evaluates one network on one data set; the parameters are the command line's options.

    Returns:
        What results.json holds: the settings, average precisions as fractions, versions, seconds by stage.
        Of several processes the first searches, scores and writes; the others return nothing.

    Raises:
        UserError: whatever the user can mend, most of it before any image is decoded.
    """
    settings = dict(locals())
    evaluation_arguments.check_evaluation_options(settings)
    datasets_dir, weights_dir = user_path(datasets_dir, "datasets_dir"), user_path(weights_dir, "weights_dir")
    output = None if output is None else user_path(output, "output")
    descriptors = None if descriptors is None else user_path(descriptors, "descriptors")
    figures = None if figures is None else user_path(figures, "figures")
    if eval_binary is not None:
        check_program(eval_binary := user_path(eval_binary, "eval_binary"))
    for folder in (output, descriptors, figures):
        if folder is not None:
            check_writable(folder)
    torch_device = choose_device(launched_device(device))
    batch_size = suitable_batch_size(torch_device) if batch_size is None else batch_size
    workers = suitable_workers(torch_device) if workers is None else workers
    settings |= {"device": str(torch_device), "batch_size": batch_size, "workers": workers}
    poolings = list(compare) or [pooling]
    settings["pooling"] = None if compare else pooling

    seconds: dict[str, float] = {}
    with joined_ranks(torch_device) as ranks:
        with timed(seconds, "load"):
            folder = (
                prepare_mini(datasets_dir, seed) if dataset == MINI else find_dataset(dataset, datasets_dir)
            )
            data = open_dataset(folder)
            if data.protocols and eval_binary is not None:
                raise UserError("--eval-binary knows nothing of the revisited protocols: leave it out")
            check_search(search, len(data.images))
            check_queries(data, S)
            network = load_network(
                backbone,
                weights_dir=weights_dir,
                pooling="ra" if "ra" in poolings else poolings[0],
                levels=L,
                whiten=whiten,
                activation=activation,
                scales=scales,
                device=torch_device,
                dtype=PRECISIONS[precision],
            )
            describer = ComparedPoolings(network, poolings) if compare else network
            store = None
            if descriptors is not None:
                made_with = descriptor_settings(settings | {"pooling": ",".join(poolings)}, weights_dir)
                store = shared_store(descriptors, made_with, store_precision, ranks)

        # One descriptor for every image of the database and for every query box.
        common = {"longer_side": S, "batch_size": batch_size, "workers": workers, "ranks": ranks}
        common |= {"store": store}
        with timed(seconds, "queries"):
            entry = BACKBONES[backbone]
            try:
                queries = describe(describer, entry, data.query_pictures(), title="queries", **common).rows[:]
            except UnreadableImageError as error:
                query = next(
                    query.name for query in data.queries if data.query_images[query.image] == error.path
                )
                raise UserError(f"query {query}: {error}; a query cannot be left out") from error
        if compile:  # now, since each query's box has a size of its own
            describer.backbone = compiled(describer.backbone)
        with timed(seconds, "images"):
            pictures = [Picture(path) for path in data.images.values()]
            found = describe(describer, entry, pictures, skip_bad_images=skip_bad_images, **common)
    if not ranks.leads:
        return {}
    for error in found.bad.values():
        log.warning("note: left out %s", error)
    names = [name for place, name in enumerate(data.images) if place not in found.bad]
    if output is not None:
        report.start(output)
        if store is None:
            query_names = [query.name for query in data.queries]
            report.write_descriptors(output, names, found.rows, query_names, queries)

    # For each pooling, one if none are compared: search, score, and once more with what that found.
    scores: dict[str, dict[str, Scores]] = {}
    curves: dict[str, dict[str, Curve]] = {}
    recalls: dict[str, dict[str, float]] = {}
    width = queries.shape[1] // len(poolings)
    for place, compared in enumerate(poolings):
        dimensions = slice(place * width, (place + 1) * width)
        own_queries, database = queries[:, dimensions], columns(found.rows, dimensions)
        if dba:
            with timed(seconds, "database augmentation"):
                database = augment_database(database, dba)
        similarities_to = partial(similarities, database=database)
        if search != "exact":
            with timed(seconds, "index"):
                index = build_index(search, database, seed)
                recalls[compared] = report_recall(index, own_queries, database)
            similarities_to = partial(similarities_by, index, count=len(database))
        ways = {"qe": qe, "alpha": alpha, "diffusion": diffusion, "diffusion_alpha": diffusion_alpha}
        scores[compared] = {}
        steps = searches(own_queries, database, similarities_to, **ways)
        for way, similar in timed_steps(seconds, steps):
            if way == PLAIN and search != "exact":
                report_left_out(similar)
            if way == PLAIN and place == 0:
                plain = similar
                if output is not None:
                    report.write_rankings(output, named_rankings(data, names, similar))
            if figures is not None and (way == PLAIN or not compare):
                title = compared if compare else way
                curves[title] = query_curves(data, names, similar)
            with timed(seconds, "scoring"):
                scores[compared][way] = score(data, names, similar, eval_binary)
    first = scores[poolings[0]]
    if without := without_positives(first[PLAIN]):
        log.warning("note: queries without positives are left out of the mean: %s", ", ".join(without))

    results = {
        "settings": settings,
        "images": len(names),
        "images_left_out": [str(error.path) for error in found.bad.values()],
        "queries": len(queries),
        **for_results(first),
        "recall": recalls,
        "seconds": seconds,
        "versions": report.versions(torch_device),
    }
    if compare:
        differences = comparison.differences(scores, seed)
        results |= {"compared": {name: for_results(of_one) for name, of_one in scores.items()}}
        results |= {"differences": comparison.for_json(differences)}
    if output is not None:
        report.write_results(output, results)
    if compare:
        print(comparison.format_comparison(scores, differences))
    else:
        for way, of_search in first.items():
            if way != PLAIN:
                print(f"{way.capitalize()}...")
            print(format_scores(of_search))
    if figures is not None:
        draw_figures(figures, data, names, plain, curves, network, entry, S)
    return results


def shared_store(
    folder: Path, made_with: dict[str, object], precision: StorePrecision, ranks: Ranks
) -> DescriptorStore:
    """Opens a store in all processes; the first makes it, where there is none."""
    if ranks.leads:
        open_store(folder, made_with, precision=precision, verify=False, tidy=True)
    ranks.gather([])
    return open_store(folder, made_with, precision=precision)


def timed_steps(
    seconds: dict[str, float], steps: Iterator[tuple[str, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray]]:
    """The steps of a search, the time that each takes noted under its name."""
    start = time.perf_counter()
    for name, similar in steps:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        yield name, similar
        start = time.perf_counter()


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the time spent inside to a stage's seconds."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and runs main with them."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset",
        default="Oxford",
        help="a folder in --datasets-dir or anywhere: Oxford, Paris, ROxford, ...; Mini draws itself",
    )
    arguments.add_backbone_options(parser)
    arguments.add_attention_options(parser)
    evaluation_arguments.add_descriptor_options(parser)
    evaluation_arguments.add_comparison_option(parser)
    arguments.add_picture_options(parser)
    arguments.add_run_options(parser)
    evaluation_arguments.add_store_options(parser)
    evaluation_arguments.add_search_options(parser)
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out what cannot be decoded")
    parser.add_argument(
        "--eval-binary", type=arguments.path, help="score with this compiled compute_ap of VGG's"
    )
    parser.add_argument(
        "--output",
        type=arguments.path,
        help="folder for results.json, rankings/ and, unless --descriptors keeps them, descriptors.npz",
    )
    parser.add_argument(
        "--figures", type=arguments.path, help="folder for pictures of results, curves and attention"
    )
    main(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
