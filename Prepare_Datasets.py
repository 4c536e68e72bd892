"""Prepare data sets and weight files: download, unpack, lay out, label and verify them.

Data sets without a public server (ImageNet, a landmark set) are read from archives that the user has. The
archives are recognised by their contents. Finished steps are skipped, so the next run completes a killed run.

    python Prepare_Datasets.py get Oxford
    python Prepare_Datasets.py get ImageNet --archive ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar ...
    python Prepare_Datasets.py get Oxford --distractors flickr100k
    python Prepare_Datasets.py labels my_photographs
    python Prepare_Datasets.py verify Oxford
    python Prepare_Datasets.py verify weights
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import dataclasses
import logging
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from models.backbones.registry import DEFAULT_BACKBONE
from utils.data.mini import prepare_mini
from utils.data.oxford_paris import find_dataset
from utils.errors import BadFileError, UserError
from utils.file_names import DATASETS_DIR, MINI, WEIGHTS_DIR
from utils.files.writing import check_writable, replace_file
from utils.labelling.options import LabelsOptions
from utils.labelling.write import write_labels
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import called_with_first, parse_options
from utils.options.shared import BackboneOptions, RunOptions
from utils.prepare.archives import Limits
from utils.prepare.data_set import Source, prepare_data_set, prepare_with_r1m
from utils.prepare.distractors import add_distractors
from utils.prepare.layout import discard_if_invalid, fetch_file
from utils.prepare.recipes import COMPUTE_AP, RECIPES, WITH_DISTRACTORS, WITH_R1M
from utils.prepare.verify import verify
from utils.prepare.verify_weights import verify_weights
from utils.prepare.weights import check_weights, fill_weights
from utils.program.run_command import run_command
from utils.text import log_to_stderr
from utils.weights.report import report_weights

log = logging.getLogger(__name__)

WEIGHTS, PROGRAM = "weights", "compute_ap"
NAMES = (*RECIPES, *WITH_R1M, WEIGHTS, PROGRAM, MINI)

GET, VERIFY, LABELS = "get", "verify", "labels"
"""Names of the commands."""


@options_class
class PrepareOptions:
    """Options of the preparation of a data set."""

    title = "preparation"

    datasets_dir: Path = redefault(RunOptions, "datasets_dir", DATASETS_DIR)
    weights_dir: Path = redefault(BackboneOptions, "weights_dir", WEIGHTS_DIR)
    archives: tuple[Path, ...] = option(
        default=(), help="archives that you have already", flag="--archive", separate=True
    )
    distractors: Path | None = option(
        default=None, help="folder of images to add to the database, as for Oxford105k"
    )
    insecure_hosts: tuple[str, ...] = option(
        default=(),
        help="hosts whose invalid certificates are accepted",
        flag="--insecure-host",
        separate=True,
    )
    max_files: int = option(
        default=Limits().files, help="largest number of files in an archive", valid=Range(1, 10**12)
    )
    max_bytes: int = option(
        default=Limits().bytes, help="largest size of an unpacked archive, in bytes", valid=Range(1, 10**18)
    )
    seed: int = redefault(RunOptions, "seed", 0)


@options_class
class GetOptions(PrepareOptions):
    """Options of the command `get`."""

    names: tuple[str, ...] = option(
        default=(), help=f"one or more of {', '.join(NAMES)}", positional=True, separate=True
    )


@options_class
class VerifyOptions(PrepareOptions):
    """Options of the command `verify`. Options of `get` are accepted and have no effect."""

    names: tuple[str, ...] = option(
        default=(),
        help=f"names or folders of data sets, or {WEIGHTS}; all data sets in --datasets-dir if not given",
        positional=True,
        separate=True,
    )
    backbone: str = redefault(BackboneOptions, "backbone", DEFAULT_BACKBONE)
    backbone_weights: Path | None = redefault(BackboneOptions, "backbone_weights", None)
    images: Path | None = option(
        default=None,
        help=f"folder of photographs to check {WEIGHTS} with; a data set if not given",
        metavar="DIR",
    )


def prepare(name: str, options: PrepareOptions) -> Path:
    """Prepare one data set, the weights or the program compute_ap.

    Args:
        name: one of NAMES.
        options: options of the command line.

    Returns:
        The folder of the data set or the weights, or the program.

    Raises:
        UserError: an option is invalid, a download fails, an archive is unreadable, or a file cannot be
            written. The next run skips the steps that are finished.
    """
    check_names([name])
    check_distractors(name, options)
    limits = Limits(options.max_files, options.max_bytes)
    folder = options.weights_dir if name == WEIGHTS else options.datasets_dir / name
    check_writable(folder)

    if name == MINI:
        return prepare_mini(options.datasets_dir, options.seed)
    if name == PROGRAM:
        return compile_program(folder, options.insecure_hosts)
    if name == WEIGHTS:
        fill_weights(folder, options.archives, options.insecure_hosts, limits)
        for line in report_weights(folder):
            print(line)
        check_weights(folder)
        return folder

    source = Source(options.datasets_dir, options.archives, options.insecure_hosts, limits)
    if name in WITH_R1M:
        return prepare_with_r1m(name, source)
    folder = prepare_data_set(name, source)
    if options.distractors is not None:
        extended = options.datasets_dir / WITH_DISTRACTORS[name]
        folder = add_distractors(folder, [options.distractors], extended)
        log.info("with distractors, it is in %s", folder)
    return folder


def check_distractors(name: str, options: PrepareOptions) -> None:
    """Check that distractors can be added to a data set, and that their folder exists.

    Raises:
        UserError: the data set has no form with distractors, or the folder does not exist.
    """
    if options.distractors is None:
        return
    if name not in WITH_DISTRACTORS:
        raise UserError(f"--distractors can be added to {', '.join(WITH_DISTRACTORS)}, not to {name}")
    if not options.distractors.is_dir():
        raise UserError(f"no folder of distractors at {options.distractors}")


def compile_program(folder: Path, insecure_hosts: Collection[str]) -> Path:
    """Download VGG's compute_ap.cpp and compile it.

    Args:
        folder: folder of the source and the program.
        insecure_hosts: hosts whose invalid certificates are accepted.

    Returns:
        The compiled program.

    Raises:
        UserError: the source cannot be downloaded or compiled.
    """
    source, program = folder / "compute_ap.cpp", folder / "compute_ap"
    downloaded = [] if source.exists() else [source]
    fetch_file(source, COMPUTE_AP, insecure_hosts, f"put it there yourself, as {source}")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise UserError(
            "no C++ compiler was found for compute_ap.cpp: install one, or score without --eval-binary"
        )
    # It uses functions of <cstdlib> without including it, which current compilers refuse.
    text = "#include <cstdlib>\n" + source.read_text(encoding="utf-8", errors="replace")
    with discard_if_invalid(downloaded), replace_file(program) as file:
        done = subprocess.run(
            [compiler, "-O2", "-x", "c++", "-", "-o", file.name], input=text, capture_output=True, text=True
        )
        if done.returncode:
            last = " ".join(done.stderr[-300:].split())
            raise BadFileError(f"{source} cannot be compiled: {last}")
    log.info("score with --eval-binary %s", program)
    return program


main = called_with_first(PrepareOptions)(prepare)
"""`prepare` for Python callers, with the options as keyword arguments."""


def command_line(words: Sequence[str] | None = None) -> None:
    """Parse the words, or the command line of this process if there are none, and run the command.

    Raises:
        UserError: an option is invalid, or as for `prepare`, `verify_all` and `write_labels`.
    """
    command, words = split_command(sys.argv[1:] if words is None else words)
    description = __doc__.splitlines()[0]
    if command == VERIFY:
        verifying = parse_options(VerifyOptions, description, words, f"{Path(sys.argv[0]).name} {VERIFY}")
        verify_all(verifying)
        return
    if command == LABELS:
        program = f"{Path(sys.argv[0]).name} {LABELS}"
        write_labels(parse_options(LabelsOptions, description, words, program))
        return
    description += f" The commands {VERIFY} and {LABELS} have their own --help."
    options = parse_options(GetOptions, description, words)
    names, options = split_names(options)
    if not names:
        raise UserError(f"no name is given: give one or more of {', '.join(NAMES)}")
    check_names(names)
    if options.archives and len(names) > 1:
        raise UserError("--archive needs one data set at a time")
    for name in names:
        prepare(name, options)


def split_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command and the remaining words.

    The command is `labels` only as the first word, since folders can have this name, and `get` if the words
    contain no command.
    """
    if list(words[:1]) == [LABELS]:
        return LABELS, list(words[1:])
    for command in (GET, VERIFY):
        if command in words:
            index = words.index(command)
            return command, [*words[:index], *words[index + 1 :]]
    return GET, list(words)


def split_names(options: GetOptions) -> tuple[list[str], GetOptions]:
    """Return all names, and the options without the names that were parsed as archives or hosts."""
    archives = tuple(path for path in options.archives if not _is_name(path))
    hosts = tuple(host for host in options.insecure_hosts if not _is_name(host))
    words = (*options.names, *map(str, options.archives), *options.insecure_hosts)
    taken = (*map(str, archives), *hosts)
    names = [word for word in words if word not in taken]
    return names, dataclasses.replace(options, archives=archives, insecure_hosts=hosts, names=())


def _is_name(word: str | Path) -> bool:
    """Return whether a word is one of NAMES and not the path of a file."""
    return str(word) in NAMES and not Path(word).is_file()


def check_names(names: Sequence[str]) -> None:
    """Check that all names are among NAMES.

    Raises:
        UserError: a name is unknown.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"{name!r} is unknown: give one or more of {', '.join(NAMES)}")


def verify_all(options: VerifyOptions) -> None:
    """Verify data sets and the weights: those named, or all data sets in their folder if none is named.

    Raises:
        UserError: a data set or the weights have problems, or there is no data set.
    """
    names = options.names or [name for name in RECIPES if (options.datasets_dir / name).is_dir()]
    if not names:
        raise UserError(f"none of {', '.join(RECIPES)} is in {options.datasets_dir}")
    errors = []
    for name in names:
        try:
            if name == WEIGHTS:
                backbone = BackboneOptions(
                    weights_dir=options.weights_dir,
                    backbone=options.backbone,
                    backbone_weights=options.backbone_weights,
                )
                verify_weights(backbone, options.images, options.datasets_dir)
            else:
                verify(find_dataset(name, options.datasets_dir))
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("; ".join(errors))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
