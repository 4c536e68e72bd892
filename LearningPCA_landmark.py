"""Learns the PCA that whitens region vectors, from pictures of landmarks without labels, however many.

A frozen backbone turns each picture into the maxima of its R-MAC regions; of these only the count, the mean
and the scatter are kept, which is all that a PCA needs. Files go to --output, what was found is printed as
one JSON line on standard output, and everything else goes to standard error.

    python LearningPCA_landmark.py
    torchrun --nproc-per-node 4 LearningPCA_landmark.py --resume
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from models.backbones import BACKBONES, DEFAULT_BACKBONE
from models.region_maxima import RegionMaxima
from models.regions import rmac_regions
from utils.data.landmark import FOLDER, SizedPictures, find_pictures, large_enough
from utils.descriptors.extraction import network_outputs
from utils.descriptors.settings import METHOD_VERSION
from utils.device import PRECISIONS, choose_device, compiled, suitable_batch_size, suitable_workers
from utils.errors import UserError, run_command
from utils.file_names import (
    DATASETS_DIR,
    PCA_COMPONENTS,
    PCA_MEAN,
    PCA_RECORD,
    PCA_SPECTRUM,
    PCA_STATE,
    WEIGHTS_DIR,
    weights_folder,
)
from utils.files.paths import user_path
from utils.files.writing import check_writable, make_folder
from utils.images.batches import BadPicture
from utils.images.loading import Picture
from utils.options import arguments
from utils.options.ranges import RANGES
from utils.processes import Ranks, joined_ranks, launched_device, log_level
from utils.program.signals import StopWish, stop_wish
from utils.saved_settings import METHOD
from utils.text import log_to_stderr
from utils.weights.networks import load_folded_backbone
from utils.whitening import report as pca_report
from utils.whitening.pca import StreamingPCA
from utils.whitening.state import PCAProgress, load_state, picture_digest, save_state

log = logging.getLogger(__name__)

MIN_SIDE = 200
SAVE_EVERY = 60.0

BLOCK = 256
"""Pictures whose statistics are added up, over all processes, before they count as done."""

MOST_UNREADABLE = 0.05
"""Share of the pictures that may be unreadable."""

SETTINGS = ("backbone", "S", "L", "min_side", "samples", "seed", "precision")
"""What the statistics depend on, beside the pictures: a run can only be resumed with the same."""


def main(
    *,
    datasets_dir: str | Path = DATASETS_DIR,
    weights_dir: str | Path = WEIGHTS_DIR,
    backbone: str = DEFAULT_BACKBONE,
    S: int = arguments.PCA_LONGER_SIDE,
    L: int = arguments.PCA_LEVELS,
    min_side: int = MIN_SIDE,
    components: int | None = None,
    samples: int | None = None,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    compile: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = arguments.SEED,
    save_every: float = SAVE_EVERY,
    output: str | Path = WEIGHTS_DIR,
    resume: bool = False,
) -> dict[str, object]:
    """Learns the whitening; the parameters are the command line's options.

    Returns:
        What pca.json holds: the settings, pictures and vectors seen, those left out and why, the spectrum.

    Raises:
        UserError: whatever the user can mend, most of it before any picture is decoded.
    """
    given = dict(locals())
    arguments.check_options(given)
    entry = BACKBONES[backbone]
    components = entry.channels if components is None else components
    if components > entry.channels:
        raise UserError(f"{components} components: vectors of {backbone} have {entry.channels} dimensions")
    datasets_dir, weights_dir = user_path(datasets_dir, "datasets_dir"), user_path(weights_dir, "weights_dir")
    folder = weights_folder(user_path(output, "output"), backbone)
    check_writable(folder)
    state_file = folder / PCA_STATE
    written = [folder / name for name in (PCA_COMPONENTS, PCA_MEAN, PCA_RECORD, PCA_SPECTRUM)]
    there = [path for path in (state_file, *written) if path.exists()]
    if there and not resume:
        raise UserError(f"{there[0]} is there already: name another --output, or --resume its learning")
    if written[0].exists() and not (folder / PCA_RECORD).exists():
        raise UserError(
            f"{written[0]} was not learned by this script: move it away, or name another --output"
        )

    torch_device = choose_device(launched_device(device))
    batch_size = suitable_batch_size(torch_device) if batch_size is None else batch_size
    workers = suitable_workers(torch_device) if workers is None else workers
    with joined_ranks(torch_device) as ranks:
        # The pictures. Their headers tell how many vectors there will be, before hours of work.
        paths = find_pictures(datasets_dir / FOLDER, samples, seed)
        pictures = large_enough(paths, S, min_side)
        ranks.agree_on([path.name for path in pictures.paths], "pictures")
        check_unreadable(pictures.unreadable, len(paths))
        check_vectors(pictures, L, components)
        settings = {name: given[name] for name in SETTINGS} | {"pictures": picture_digest(pictures)}
        settings[METHOD] = METHOD_VERSION

        network = load_folded_backbone(entry, weights_dir, PRECISIONS[precision]).to(torch_device)
        network = RegionMaxima(compiled(network) if compile else network, entry.stride, L)
        pca, progress = StreamingPCA(), PCAProgress()
        if resume:
            pca, progress = load_state(
                state_file, settings, channels=entry.channels, images=len(pictures.paths)
            )
        make_folder(folder)

        # Block by block: what a killed run had added up is there when it is resumed, to the bit.
        bar = tqdm(
            total=len(pictures.paths),
            initial=progress.done,
            unit="image",
            disable=None if ranks.leads else True,
        )
        saved = time.monotonic()
        blocks = [
            pictures.paths[start : start + BLOCK]
            for start in range(progress.done, len(pictures.paths), BLOCK)
        ]
        shares = [[block[place] for place in ranks.share(range(len(block)))] for block in blocks]
        mine = [Picture(path) for part in shares for path in part]
        sizes = {"longer_side": S, "batch_size": batch_size, "workers": workers}
        sizes["block"] = len(ranks.share(range(BLOCK)))
        outputs = network_outputs(network, entry, mine, **sizes) if mine else iter(())
        with bar, stop_wish() as wish:
            for block, own in zip(blocks, shares, strict=True):
                part, bad, seen = StreamingPCA(), [], 0
                part.partial_fit(np.empty((0, entry.channels), np.float32))
                while seen < len(own):
                    found = next(outputs)
                    if wish.signal_number:
                        stop(state_file, pca, progress, settings, wish, ranks)
                    if isinstance(found, BadPicture):
                        bad.append(str(found.error.path))
                        seen += 1
                        continue
                    seen += len(found.indices)
                    part.partial_fit(found.values.reshape(-1, entry.channels))
                    bar.update(len(found.indices) * ranks.world)
                pca.merge(part.summed(ranks.add_up_array))
                progress.unreadable += ranks.gather(bad)
                progress.done += len(block)
                bar.n = progress.done
                check_unreadable([*pictures.unreadable, *progress.unreadable], len(paths))
                is_last = progress.done == len(pictures.paths)
                if ranks.leads and (is_last or time.monotonic() - saved >= save_every):
                    save_state(state_file, pca, progress, settings)
                    saved = time.monotonic()

        # The components; those that the data do not carry cannot be had.
        whitened = pca.whitened_components(components)
        unreadable = [*map(str, pictures.unreadable), *progress.unreadable]
        record = {
            "settings": settings | {"components": components},
            "pictures": len(pictures.paths) - len(progress.unreadable),
            "vectors": pca.n_samples_seen_,
            "left_out": {"too_small": len(pictures.small), "unreadable": unreadable},
            "rank": pca.rank_,
            "variance_kept": float(pca.explained_variance_ratio_[:components].sum()),
            "explained_variance": pca.explained_variance_.tolist(),
        }
        if ranks.leads:
            pca_report.write_files(folder, whitened, pca.mean_, record)
            told = ("pictures", "vectors", "rank", "variance_kept")
            print(json.dumps({"components": components} | {name: record[name] for name in told}))
    return record


def stop(
    state_file: Path,
    pca: StreamingPCA,
    progress: PCAProgress,
    settings: Mapping[str, object],
    wish: StopWish,
    ranks: Ranks,
) -> NoReturn:
    """Saves what was added up, the block in hand not counted, and ends the process."""
    if progress.done and ranks.leads:
        save_state(state_file, pca, progress, settings)
        log.warning("stopped after %d pictures; --resume goes on from there", progress.done)
    raise SystemExit(wish.exit_status())


def check_unreadable(unreadable: Sequence[object], pictures: int) -> None:
    """Checks that most pictures could be read.

    Raises:
        UserError: too many could not.
    """
    if len(unreadable) > MOST_UNREADABLE * pictures:
        raise UserError(
            f"{len(unreadable)} of {pictures} pictures cannot be decoded, more than {MOST_UNREADABLE:.0%}; "
            f"{unreadable[0]} is the first"
        )


def check_vectors(pictures: SizedPictures, levels: int, components: int) -> None:
    """Checks that there will be vectors enough: n of them carry at most n - 1 components.

    Raises:
        UserError: there will not.
    """
    vectors = sum(len(rmac_regions(*size, levels)) for size in pictures.sizes)
    log.info("%d pictures have %d regions", len(pictures.paths), vectors)
    if vectors <= components:
        raise UserError(
            f"{len(pictures.paths)} pictures have {vectors} regions, too few for {components} components: "
            f"--components {vectors - 1} at most, or more pictures"
        )


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and runs main with them."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    arguments.add_backbone_options(parser, levels=arguments.PCA_LEVELS)
    arguments.add_picture_options(parser, longer_side=arguments.PCA_LONGER_SIDE)
    arguments.add_run_options(parser)
    group = parser.add_argument_group("learning")
    group.add_argument(
        "--min-side",
        type=RANGES["min_side"],
        default=MIN_SIDE,
        help="pictures with a resized side of fewer pixels are left out",
    )
    group.add_argument(
        "--components",
        type=RANGES["components"],
        help="dimensions to keep; all if not given",
    )
    group.add_argument(
        "--samples",
        type=RANGES["samples"],
        help="pictures to draw; all if not given",
    )
    group.add_argument(
        "--save-every", type=RANGES["save_every"], default=SAVE_EVERY, help="seconds between saved states"
    )
    group.add_argument(
        "--output", type=arguments.path, default=WEIGHTS_DIR, help="weights folder to write to"
    )
    group.add_argument("--resume", action="store_true", help="go on with the learning in --output")
    main(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
