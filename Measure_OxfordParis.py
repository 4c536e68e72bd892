"""Evaluates image retrieval on Oxford5k, Paris6k, the Mini benchmark or any folder of their layout.

Every image of the data set and every query box becomes one descriptor; each query ranks all images by the
dot product with its own; the ranking is scored by average precision, once as it is and once after query
expansion. The scores go to standard output, everything else to standard error.

    python Measure_OxfordParis.py --dataset Oxford
    torchrun --nproc-per-node 4 Measure_OxfordParis.py --dataset Oxford105k
"""

import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from models.attention import Activation
from models.backbones import BACKBONES, DEFAULT_BACKBONE
from models.retrieval_network import Pooling
from utils import arguments, report
from utils.atomic_files import check_writable
from utils.compute_ap import check_program, compute_ap_by_binary
from utils.describe import describe
from utils.device import PRECISIONS, choose_device, suitable_batch_size, suitable_workers
from utils.distributed import joined_ranks, launched_device, log_level
from utils.errors import UserError, run_command
from utils.file_names import DATASETS_DIR, LABELS_FOLDER, MINI, RANKINGS_FOLDER, WEIGHTS_DIR
from utils.image_loading import Picture, UnreadableImageError
from utils.mini_benchmark import prepare_mini
from utils.oxford_paris import RetrievalDataset, check_queries, find_dataset, read_dataset
from utils.query_expansion import expand_queries
from utils.ranking import first_places, rank, similarities
from utils.scoring import score_queries
from utils.weights import load_network

log = logging.getLogger(__name__)


def main(
    dataset: str,
    *,
    datasets_dir: str | Path = DATASETS_DIR,
    weights_dir: str | Path = WEIGHTS_DIR,
    backbone: str = DEFAULT_BACKBONE,
    pooling: Pooling = arguments.POOLING,
    whiten: bool = True,
    S: int = arguments.LONGER_SIDE,
    L: int = arguments.LEVELS,
    activation: Activation = arguments.ACTIVATION,
    scales: Sequence[float] = arguments.SCALES,
    qe: int = arguments.EXPANSION,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = arguments.SEED,
    skip_bad_images: bool = False,
    eval_binary: str | Path | None = None,
    output: str | Path | None = None,
) -> dict[str, object]:
    """Evaluates one network on one data set; the parameters are the command line's options.

    Returns:
        What results.json holds: the settings, average precisions as fractions, versions, seconds by stage.
        Of several processes the first searches, scores and writes; the others return nothing.

    Raises:
        UserError: whatever the user can mend, most of it before any image is decoded.
    """
    settings = dict(locals())
    arguments.check_options(settings)
    datasets_dir, weights_dir = Path(datasets_dir), Path(weights_dir)
    if eval_binary is not None:
        check_program(eval_binary := Path(eval_binary))
    if output is not None:
        check_writable(output := Path(output))
    torch_device = choose_device(launched_device(device))
    batch_size = suitable_batch_size(torch_device) if batch_size is None else batch_size
    workers = suitable_workers(torch_device) if workers is None else workers
    settings |= {"device": str(torch_device), "batch_size": batch_size, "workers": workers}

    seconds: dict[str, float] = {}
    with joined_ranks(torch_device) as ranks:
        with timed(seconds, "load"):
            folder = (
                prepare_mini(datasets_dir, seed) if dataset == MINI else find_dataset(dataset, datasets_dir)
            )
            data = read_dataset(folder)
            check_queries(data, S)
            network = load_network(
                backbone,
                weights_dir=weights_dir,
                pooling=pooling,
                levels=L,
                whiten=whiten,
                activation=activation,
                scales=scales,
                device=torch_device,
                dtype=PRECISIONS[precision],
            )

        # One descriptor for every image of the database and for every query box.
        common = {"longer_side": S, "batch_size": batch_size, "workers": workers, "ranks": ranks}
        with timed(seconds, "queries"):
            entry = BACKBONES[backbone]
            try:
                queries = describe(network, entry, data.query_pictures(), title="queries", **common).rows
            except UnreadableImageError as error:
                query = next(query.name for query in data.queries if data.images[query.image] == error.path)
                raise UserError(f"query {query}: {error}; a query cannot be left out") from error
        with timed(seconds, "images"):
            pictures = [Picture(path) for path in data.images.values()]
            found = describe(network, entry, pictures, skip_bad_images=skip_bad_images, **common)
    if not ranks.leads:
        return {}
    for error in found.bad.values():
        log.warning("note: left out %s", error)
    kept = [place for place in range(len(pictures)) if place not in found.bad]
    names = [name for place, name in enumerate(data.images) if place not in found.bad]
    database = found.rows[kept]
    rate = len(names) / seconds["images"]
    log.info("described %d images in %.1f s (%.2f a second)", len(names), seconds["images"], rate)
    if output is not None:
        report.start(output)
        report.write_descriptors(output, names, database, [query.name for query in data.queries], queries)

    # Search, score, and once more with expanded queries.
    with timed(seconds, "search"):
        similar = similarities(queries, database)
    if output is not None:
        report.write_rankings(output, named_rankings(data, names, similar))
    with timed(seconds, "scoring"):
        precisions = score(data, names, similar, eval_binary)
    without = [query for query, precision in precisions.items() if np.isnan(precision)]
    if without:
        log.warning("note: queries without positives are left out of the mean: %s", ", ".join(without))
    expanded_precisions = None
    if qe:
        with timed(seconds, "query expansion"):
            expanded = expand_queries(queries, database, first_places(similar, qe))
            expanded_precisions = score(data, names, similarities(expanded, database), eval_binary)

    results = {
        "settings": settings,
        "images": len(names),
        "images_left_out": [str(error.path) for error in found.bad.values()],
        "queries": len(queries),
        "mAP": report.mean_average_precision(precisions),
        "mAP_query_expansion": report.mean_average_precision(expanded_precisions or {}),
        "AP": precisions,
        "AP_query_expansion": expanded_precisions,
        "seconds": seconds,
        "versions": report.versions(torch_device),
    }
    if output is not None:
        report.write_results(output, results)
    print(report.format_scores(precisions))
    if expanded_precisions is not None:
        print("Query expansion...")
        print(report.format_scores(expanded_precisions))
    return results


def named_rankings(data: RetrievalDataset, names: Sequence[str], similar: np.ndarray) -> dict[str, list[str]]:
    """Each query's ranking as image names, the most similar first."""
    return {
        query.name: [names[place] for place in ranking]
        for query, ranking in zip(data.queries, rank(similar), strict=True)
    }


def score(
    data: RetrievalDataset, names: Sequence[str], similar: np.ndarray, eval_binary: Path | None
) -> dict[str, float]:
    """Average precision of each query, 0..1, computed here or by a compiled copy of VGG's program."""
    if eval_binary is None:
        return score_queries(data.queries, names, similar)
    if spaced := [name for name in names if len(name.split()) > 1]:
        raise UserError(f"VGG's program cannot read image names with spaces, such as {spaced[0]!r}")
    with tempfile.TemporaryDirectory() as folder:
        report.write_rankings(Path(folder), named_rankings(data, names, similar))
        return {
            query.name: compute_ap_by_binary(
                eval_binary,
                data.folder / LABELS_FOLDER / query.name,
                report.ranking_file(Path(folder) / RANKINGS_FOLDER, query.name),
            )
            for query in data.queries
        }


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the time spent inside to a stage's seconds."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and runs main with them."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset",
        default="Oxford",
        help="a folder in --datasets-dir or anywhere: Oxford, Paris, Oxford105k, ...; Mini draws itself",
    )
    arguments.add_backbone_options(parser)
    arguments.add_attention_options(parser)
    arguments.add_descriptor_options(parser)
    arguments.add_picture_options(parser)
    arguments.add_run_options(parser)
    parser.add_argument(
        "--qe",
        type=arguments.at_least(arguments.LEAST["qe"]),
        default=arguments.EXPANSION,
        help="images averaged with the query for its expansion; 0 for none",
    )
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out what cannot be decoded")
    parser.add_argument("--eval-binary", type=Path, help="score with this compiled compute_ap of VGG's")
    parser.add_argument("--output", type=Path, help="folder for results.json, descriptors.npz and rankings/")
    main(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    logging.basicConfig(level=log_level(), format="%(message)s", stream=sys.stderr)
    sys.exit(run_command(command_line))
