"""Scores of the rankings in run files, on the labels of a data set: for rankings of other systems."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.data.retrieval_dataset import RetrievalDataset
from utils.errors import UserError
from utils.scoring.queries import Ranks
from utils.scoring.run_files import read_run
from utils.scoring.score_rankings import score
from utils.scoring.scores import Scores
from utils.text import first_names

log = logging.getLogger(__name__)


WITHOUT_EFFECT = ("compare", "eval_binary", "figures", "descriptors", "rerank", "dba", "diffusion")
"""Options that select results of an evaluation which run files cannot have."""


def check_run_options(paths: Sequence[Path], output: Path | None, options: Mapping[str, object]) -> None:
    """Check the options of the scoring of run files.

    Args:
        paths: run files.
        output: folder to write to.
        options: all options of the evaluation by name.

    Raises:
        UserError: a run is given twice or would be replaced, or an option has no effect.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"score_run {','.join(map(str, paths))} names a file twice: name each file once")
    for path in paths:
        if output is not None and path.resolve().parent == output.resolve():
            raise UserError(f"output {output} would replace {path}: name another folder")
    ignored = [name for name in WITHOUT_EFFECT if options[name]] + ["no_boxes"] * (not options["boxes"])
    if ignored:
        raise UserError(f"{ignored[0]} has no effect on the run files of score_run: leave one out")


def score_runs(
    data: RetrievalDataset, paths: Sequence[Path], metrics: Sequence[str] = ()
) -> dict[str, Scores]:
    """Return the scores of run files by the names of the files without suffix, or by their paths if equal.

    An image that a run leaves out is not retrieved, which lowers the average precision if it is a positive.

    Args:
        data: data set with queries and labels.
        paths: run files.
        metrics: names of metrics beside the average precision; the data set's if empty.

    Raises:
        UserError: a run is unreadable, lacks a query, or is for another data set.
    """
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    return {
        name: score(data, run_ranks(data, read_run(path), path), metrics)
        for name, path in zip(names, paths, strict=True)
    }


def run_ranks(data: RetrievalDataset, run: Mapping[str, Sequence[str]], path: Path) -> list[Ranks]:
    """Return the ranks of the images of one run, per query.

    Args:
        data: data set with queries and labels.
        run: names of the images by rank, per query.
        path: the run file, for errors.

    Raises:
        UserError: the run lacks a query, or has a query or only images that are not in the data set.
    """
    queries = [query.name for query in data.queries]
    if missing := set(queries) - run.keys():
        raise UserError(f"{path} lacks {len(missing)} of {len(queries)} queries: {first_names(missing)}")
    if unknown := run.keys() - set(queries):
        raise UserError(f"{path} has queries that are not in the data set: {first_names(unknown)}")
    ranked = set[str]().union(*run.values())
    if strange := ranked - data.images.keys():
        if len(strange) == len(ranked):
            example = next(iter(data.images))
            raise UserError(
                f"{path} ranks no image of the data set, but {first_names(strange)}: "
                f"images are named without folder and suffix, such as {example}"
            )
        log.warning(
            "note: %s ranks %d images that are not in the data set: %s",
            path,
            len(strange),
            first_names(strange),
        )
    return [{name: rank for rank, name in enumerate(run[query])} for query in queries]
