"""Prepares data sets and weight files: downloads what can be, unpacks, lays out, and verifies.

What lies on no public server (ImageNet, a landmark set), or on one that is gone, is taken from archives that
the user has, in any order: which is which is found from their contents. Work that is done is not done again,
and a run that was killed is finished by the next one.

    python Prepare_Datasets.py Oxford
    python Prepare_Datasets.py ImageNet --archive ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar ...
    python Prepare_Datasets.py Oxford --distractors flickr100k
    python Prepare_Datasets.py verify Oxford
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import logging
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from utils.data.imagenet import FOLDER as IMAGENET
from utils.data.mini import prepare_mini
from utils.data.oxford_paris import find_dataset
from utils.data.revisited_labels import as_json, read_pickled_labels
from utils.errors import BadFileError, UserError, run_command
from utils.file_names import DATASETS_DIR, MINI, WEIGHTS_DIR
from utils.files.paths import user_path
from utils.files.writing import check_writable, replace_file
from utils.options import arguments
from utils.options.ranges import RANGES
from utils.prepare.archives import Limits
from utils.prepare.imagenet_labels import write_validation_list
from utils.prepare.layout import (
    add_distractors,
    discarded_if_useless,
    fetch_file,
    fill_part,
    fill_weights,
    sort_archives,
)
from utils.prepare.recipes import (
    COMPUTE_AP,
    RECIPES,
    REVISITED_LABELS,
    WITH_DISTRACTORS,
)
from utils.prepare.verify import verify
from utils.text import log_to_stderr
from utils.weights.report import report_weights

log = logging.getLogger(__name__)

WEIGHTS, PROGRAM, VERIFY = "weights", "compute_ap", "verify"
NAMES = (*RECIPES, WEIGHTS, PROGRAM, MINI)


def main(
    name: str,
    *,
    datasets_dir: str | Path = DATASETS_DIR,
    weights_dir: str | Path = WEIGHTS_DIR,
    archives: Sequence[str | Path] = (),
    distractors: str | Path | None = None,
    insecure_hosts: Collection[str] = (),
    max_files: int = Limits().files,
    max_bytes: int = Limits().bytes,
    seed: int = arguments.SEED,
) -> Path:
    """Prepares one data set, or the weights; the parameters are the command line's options.

    Returns:
        The folder that holds it.

    Raises:
        UserError: whatever the user can mend; what was done stays done.
    """
    check_names([name])
    distractors = None if distractors is None else user_path(distractors, "distractors")
    arguments.check_options({"max_files": max_files, "max_bytes": max_bytes, "seed": seed})
    if distractors is not None and name not in WITH_DISTRACTORS:
        raise UserError(f"--distractors come to {', '.join(WITH_DISTRACTORS)}, not to {name}")
    if distractors is not None and not distractors.is_dir():
        raise UserError(f"no folder of distractors at {distractors}")
    datasets_dir, weights_dir = user_path(datasets_dir, "datasets_dir"), user_path(weights_dir, "weights_dir")
    archives = [user_path(archive, "an archive") for archive in archives]
    limits = Limits(max_files, max_bytes)
    folder = weights_dir if name == WEIGHTS else datasets_dir / name
    check_writable(folder)

    if name == MINI:
        return prepare_mini(datasets_dir, seed)
    if name == PROGRAM:
        return compile_program(folder, insecure_hosts)
    if name == WEIGHTS:
        fill_weights(folder, archives, insecure_hosts, limits)
        for line in report_weights(folder):
            print(line)
        return folder

    # Each folder of the data set comes from its own archives and appears when it is complete.
    given = sort_archives(archives, RECIPES[name])
    for part in RECIPES[name]:
        fill_part(folder, part, given[part.folder], datasets_dir, insecure_hosts, limits)
    if name == IMAGENET:
        write_validation_list(folder)
    if name in REVISITED_LABELS:
        fetch_revisited_labels(folder, *REVISITED_LABELS[name], insecure_hosts)
    log.info("%s is in %s", name, folder)
    if distractors is not None:
        folder = add_distractors(folder, distractors, datasets_dir / WITH_DISTRACTORS[name])
        log.info("with distractors, it is in %s", folder)
    return folder


def fetch_revisited_labels(
    folder: Path, file_name: str, mirrors: Sequence[str], insecure_hosts: Collection[str]
) -> None:
    """Gets the revisited protocol's labels, a pickle, and keeps them as JSON beside it as well.

    Raises:
        UserError: they cannot be downloaded, or hold more than labels.
    """
    pickled = folder / file_name
    how_else = f"put it there yourself, as {pickled}"
    own = [] if pickled.exists() else [pickled]
    fetch_file(pickled, mirrors, insecure_hosts, how_else)
    with discarded_if_useless(own):
        labels = as_json(read_pickled_labels(pickled))
    with replace_file(pickled.with_suffix(".json")) as file:
        file.write(labels)


def compile_program(folder: Path, insecure_hosts: Collection[str]) -> Path:
    """Downloads VGG's compute_ap.cpp and compiles it.

    Raises:
        UserError: it cannot be downloaded or compiled.
    """
    source, program = folder / "compute_ap.cpp", folder / "compute_ap"
    own = [] if source.exists() else [source]
    fetch_file(source, COMPUTE_AP, insecure_hosts, f"put it there yourself, as {source}")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise UserError("no C++ compiler was found to compile compute_ap.cpp; scores need none without it")
    # Today's headers no longer bring in what it uses of this one.
    text = "#include <cstdlib>\n" + source.read_text(encoding="utf-8", errors="replace")
    with discarded_if_useless(own), replace_file(program) as file:
        done = subprocess.run(
            [compiler, "-O2", "-x", "c++", "-", "-o", file.name], input=text, capture_output=True, text=True
        )
        if done.returncode:
            last = " ".join(done.stderr[-300:].split())
            raise BadFileError(f"{source} cannot be compiled: {last}")
    log.info("score with --eval-binary %s", program)
    return program


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and prepares or verifies."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help=f"{', '.join(NAMES)}; or {VERIFY} and data sets, by name or by folder"
    )
    parser.add_argument(
        "--datasets-dir", type=arguments.path, default=DATASETS_DIR, help="folder of the data sets"
    )
    parser.add_argument(
        "--weights-dir", type=arguments.path, default=WEIGHTS_DIR, help="folder of the weight files"
    )
    parser.add_argument(
        "--archive",
        dest="archives",
        type=arguments.path,
        nargs="+",
        default=[],
        help="archives that you have already",
    )
    parser.add_argument(
        "--distractors", type=arguments.path, help="folder of pictures to add, as for Oxford105k"
    )
    parser.add_argument(
        "--insecure-host",
        dest="insecure_hosts",
        nargs="+",
        default=[],
        help="hosts whose invalid certificates are accepted",
    )
    parser.add_argument(
        "--max-files", type=RANGES["max_files"], default=Limits().files, help="an archive may hold so many"
    )
    parser.add_argument(
        "--max-bytes",
        type=RANGES["max_bytes"],
        default=Limits().bytes,
        help="an archive may unpack to so many",
    )
    parser.add_argument("--seed", type=RANGES["seed"], default=arguments.SEED, help="of the pictures of Mini")
    options = vars(parser.parse_intermixed_args(words))
    names = options.pop("names")
    # An option that takes several values also takes the names behind them.
    for option in ("archives", "insecure_hosts"):
        names += [str(word) for word in options[option] if _is_name(word)]
        options[option] = [word for word in options[option] if not _is_name(word)]
    if not names:
        parser.error("the following arguments are required: names")
    if names[0] == VERIFY:
        verify_all(names[1:], options["datasets_dir"])
        return
    check_names(names)
    if options["archives"] and len(names) > 1:
        raise UserError("--archive goes with one data set at a time")
    for name in names:
        main(name, **options)


def _is_name(word: str | Path) -> bool:
    """Return whether a word names something to prepare, and no file."""
    return str(word) in NAMES and not Path(word).is_file()


def check_names(names: Sequence[str]) -> None:
    """Checks that there is a recipe for each of the names.

    Raises:
        UserError: there is none for one.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"nothing is known of {name!r}: {', '.join(NAMES)} can be prepared")


def verify_all(names: Sequence[str], datasets_dir: Path) -> None:
    """Verifies the data sets of these names or, without names, all that are there.

    Raises:
        UserError: one of them has problems, or there is none.
    """
    names = names or [name for name in RECIPES if (datasets_dir / name).is_dir()]
    if not names:
        raise UserError(f"none of {', '.join(RECIPES)} is in {datasets_dir}")
    errors = []
    for name in names:
        try:
            verify(find_dataset(name, datasets_dir))
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("; ".join(errors))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
