"""Learn the PCA that whitens region vectors, from any number of images without labels.

A frozen backbone turns each image into the maxima of its R-MAC regions. Only the count, the mean and the
scatter of these vectors are kept, which is all that a PCA needs. Files go to --output, a summary to standard
output as one JSON line, and all messages to standard error.

    python LearningPCA_landmark.py
    torchrun --nproc-per-node 4 LearningPCA_landmark.py --resume
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from models.poolings.regions import rmac_regions
from models.poolings.rmac import RMAC
from models.retrieval_network import RetrievalNetwork
from utils.data.landmark import FOLDER, SizedImages, find_images, select_large_images
from utils.descriptors.extraction import Output, network_outputs
from utils.device import choose_device
from utils.errors import UserError
from utils.file_names import (
    PCA_COMPONENTS,
    PCA_MEAN,
    PCA_RECORD,
    PCA_SPECTRUM,
    PCA_STATE,
    WEIGHTS_DIR,
    weights_folder,
)
from utils.files.writing import check_writable, make_folder
from utils.images.batches import Loading, UnreadableImage
from utils.images.loading import InputImage
from utils.images.unreadable import check_unreadable
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import called_with, parse_options
from utils.options.saved_options import binding_settings, to_json
from utils.options.shared import COUNTS, SIDES, BackboneOptions, ImageOptions, RunOptions
from utils.processes import Processes, join_processes, log_level, process_device
from utils.program.run_command import run_command
from utils.program.signals import StopWish, stop_wish
from utils.saved_settings import BACKBONE_DIGEST, METHOD, METHOD_VERSION
from utils.text import log_to_stderr
from utils.weights.check_on_images import note_preprocessing
from utils.weights.network_record import Facts, Network, PartWriter
from utils.weights.networks import fold_backbone, given_backbone_digest, identify_network, load_backbone
from utils.whitening import report as pca_report
from utils.whitening.pca import StreamingPCA
from utils.whitening.state import PCAProgress, image_digest, load_state, save_state

log = logging.getLogger(__name__)

BLOCK = 256
"""Number of images per block, over all processes. Progress is saved only after complete blocks."""

MOST_UNREADABLE = 0.05
"""Share of the images that may be unreadable."""


@options_class
class PCAOptions(BackboneOptions, ImageOptions, RunOptions):
    """Options of the learning of a whitening."""

    title = "learning"
    recorded = frozenset({METHOD, BACKBONE_DIGEST, "image_digest"})

    L: int = redefault(BackboneOptions, "L", 3)
    images: tuple[Path, ...] = option(
        default=(),
        help="folders of images, searched recursively; Landmark/train/data in --datasets-dir if not given",
        metavar="DIR",
        separate=True,
    )
    min_side: int = option(
        default=200,
        help="leave out images whose shorter side has fewer pixels after resizing",
        valid=SIDES,
        binding=True,
    )
    components: int | None = option(default=None, help="dimensions to keep; all if not given", valid=COUNTS)
    samples: int | None = option(
        default=None, help="images to draw; all if not given", valid=COUNTS, binding=True
    )
    save_every: float = option(default=60.0, help="seconds between saved states", valid=Range(0, 10**9))
    output: Path = option(default=WEIGHTS_DIR, help="weights folder to write to")
    resume: bool = option(default=False, help="continue the learning in --output")

    @property
    def longer_side(self) -> int:
        """S, or the default of the backbone if S is not given."""
        return self.spec.pca_longer_side if self.S is None else self.S

    @property
    def folder(self) -> Path:
        """Folder to write the files to."""
        return weights_folder(self.output, self.backbone)

    def check(self) -> None:
        """Check that there are not more components than dimensions of the vectors.

        Raises:
            UserError: there are more.
        """
        channels = self.spec.channels
        if self.components is not None and self.components > channels:
            raise UserError(
                f"{self.components} components: vectors of {self.backbone} have {channels} dimensions"
            )


def learn(options: PCAOptions) -> dict[str, object]:
    """Learn a whitening.

    Returns:
        The contents of pca.json: settings, numbers of images and vectors, images left out, and spectrum.

    Raises:
        UserError: an option, an image or a file is invalid, or a file cannot be written. Most errors are
            raised before any image is decoded.
        SystemExit: SIGTERM or Ctrl-C stopped the learning, after its state was saved.
    """
    check_output(options)
    device = choose_device(process_device(options.device))
    loading = Loading.on(device, options.longer_side, options.batch_size, options.workers)
    with join_processes(device) as processes:
        # The images. The number of vectors follows from the sizes in their headers.
        folders = options.images or [options.datasets_dir / FOLDER]
        paths = find_images(folders, options.samples, options.seed)
        images = select_large_images(paths, options.longer_side, options.min_side)
        processes.check_same_names([path.name for path in images.paths], "images")
        check_unreadable(images.unreadable, len(paths), MOST_UNREADABLE)
        spec = options.spec
        components = spec.channels if options.components is None else options.components
        check_vectors(images, options.L, components)

        # The network that computes the region vectors.
        facts: Facts = {"S": options.longer_side, "L": options.L, "components": components}
        backbone = load_backbone(spec, options.weights_dir, options.backbone_weights)
        identity = identify_network(options, backbone)
        network_record = PartWriter(options.folder, identity, "whitening", facts)
        network_record.check()
        if processes.leads:
            note_preprocessing(options, images.paths, backbone)
        settings = settings_of(options, images, identity)
        backbone = fold_backbone(backbone, options, device)
        network = RetrievalNetwork(backbone, [RMAC(options.L, spec.stride)]).eval()
        if options.compile:
            backbone.compile_features()

        # The statistics, and the components that follow from them.
        pca, progress = add_up(options, settings, network, images, loading, processes, len(paths))
        whitened = pca.whitened_components(components)
        record = {
            "settings": settings_to_repeat(options) | settings | {"components": components},
            "images": len(images.paths) - len(progress.unreadable),
            "vectors": pca.count,
            "left_out": {
                "too_small": len(images.small),
                "unreadable": [*map(str, images.unreadable), *progress.unreadable],
            },
            "rank": pca.rank,
            "variance_kept": float((pca.variances / pca.variances.sum())[:components].sum()),
            "explained_variance": pca.variances.tolist(),
        }
        if processes.leads:
            pca_report.write_files(options.folder, whitened, pca.mean, record)
            network_record.write([PCA_COMPONENTS, PCA_MEAN])
            summary = ("images", "vectors", "rank", "variance_kept")
            print(json.dumps({"components": components} | {name: record[name] for name in summary}))
    return record


def add_up(
    options: PCAOptions,
    settings: dict[str, object],
    network: RetrievalNetwork,
    images: SizedImages,
    loading: Loading,
    processes: Processes,
    count: int,
) -> tuple[StreamingPCA, PCAProgress]:
    """Add up the statistics of all images, block by block.

    A resumed run adds up the same blocks as an uninterrupted run, so both give the same bits.

    Args:
        options: options of the learning.
        settings: all settings that a resumed run must share.
        network: network that computes the region vectors.
        images: images that are large enough.
        loading: settings with which images are loaded.
        processes: processes that share each block.
        count: number of images before any was left out.

    Raises:
        UserError: too many images are unreadable, or the state is unreadable or cannot be written.
    """
    state_file = options.folder / PCA_STATE
    channels = network.backbone.channels
    pca, progress = StreamingPCA(channels), PCAProgress()
    total = len(images.paths)
    if options.resume:
        pca, progress = load_state(state_file, settings, channels=channels, images=total)
    make_folder(options.folder)
    starts = range(progress.done, total, BLOCK)
    blocks = [images.paths[start : start + BLOCK] for start in starts]
    shares = [[block[index] for index in processes.share(range(len(block)))] for block in blocks]
    inputs = [InputImage(path) for share in shares for path in share]
    block_size = len(processes.share(range(BLOCK)))
    compute = network.region_vectors
    outputs: Iterator[Output | UnreadableImage] = iter(())
    if inputs:
        outputs = network_outputs(network, inputs, loading, compute=compute, block=block_size)
    hidden = None if processes.leads else True
    bar = tqdm(total=total, initial=progress.done, unit="image", disable=hidden)
    saved = time.monotonic()
    with bar, stop_wish() as wish:
        for block, share in zip(blocks, shares, strict=True):
            part, unreadable, seen = StreamingPCA(channels), [], 0
            part.add(np.empty((0, channels), np.float32))  # sets the type, even if no image is readable
            while seen < len(share):
                output = next(outputs)
                if wish.signal_number:
                    stop(state_file, pca, progress, settings, wish, processes)
                if isinstance(output, UnreadableImage):
                    unreadable.append(str(output.error.path))
                    seen += 1
                    continue
                seen += len(output.indices)
                part.add(output.values.reshape(-1, channels))
                bar.update(len(output.indices) * processes.count)
            part.sum_processes(processes.add_up_array)
            pca.merge(part)
            progress.unreadable += processes.gather(unreadable)
            progress.done += len(block)
            bar.n = progress.done
            check_unreadable([*images.unreadable, *progress.unreadable], count, MOST_UNREADABLE)
            is_due = progress.done == total or time.monotonic() - saved >= options.save_every
            if processes.leads and is_due:
                save_state(state_file, pca, progress, settings)
                saved = time.monotonic()
    return pca, progress


def settings_of(options: PCAOptions, images: SizedImages, network: Network) -> dict[str, object]:
    """Return all settings that the statistics depend on. They must be the same when a run is resumed."""
    method = {METHOD: METHOD_VERSION}
    resolved = {"S": options.longer_side, "image_digest": image_digest(images)}
    resolved[BACKBONE_DIGEST] = given_backbone_digest(options, network)
    return method | binding_settings(options) | resolved


def settings_to_repeat(options: PCAOptions) -> dict[str, object]:
    """Return the options from which --config repeats a run, except for its output."""
    return {name: value for name, value in to_json(options).items() if name not in ("output", "resume")}


def stop(
    state_file: Path,
    pca: StreamingPCA,
    progress: PCAProgress,
    settings: dict[str, object],
    wish: StopWish,
    processes: Processes,
) -> NoReturn:
    """Save the statistics of the finished blocks and end the process.

    Raises:
        SystemExit: always.
    """
    if progress.done and processes.leads:
        save_state(state_file, pca, progress, settings)
        log.warning("stopped after %d images; --resume continues from there", progress.done)
    raise SystemExit(wish.exit_status())


def check_output(options: PCAOptions) -> None:
    """Check that the output folder can be written to, and holds no file that would be replaced.

    Raises:
        UserError: the folder cannot be written to, or holds a whitening or a state that is not resumed.
    """
    folder = options.folder
    check_writable(folder)
    written = [folder / name for name in (PCA_COMPONENTS, PCA_MEAN, PCA_RECORD, PCA_SPECTRUM)]
    present = [path for path in (folder / PCA_STATE, *written) if path.exists()]
    if present and not options.resume:
        raise UserError(f"{present[0]} is there already: name another --output, or --resume its learning")
    if written[0].exists() and not (folder / PCA_RECORD).exists():
        raise UserError(
            f"{written[0]} was not learned by this script: move it away, or name another --output"
        )


def check_vectors(images: SizedImages, levels: int, components: int) -> None:
    """Check that there are enough vectors for the components: n vectors have at most n - 1 components.

    Raises:
        UserError: there are too few vectors.
    """
    vectors = sum(len(rmac_regions(*size, levels)) for size in images.sizes)
    log.info("%d images have %d regions", len(images.paths), vectors)
    if vectors <= components:
        raise UserError(
            f"{len(images.paths)} images have {vectors} regions, too few for {components} components: "
            f"--components {vectors - 1} at most, or more images"
        )


main = called_with(PCAOptions)(learn)
"""`learn` for Python callers, with the options as keyword arguments."""


def command_line(words: Sequence[str] | None = None) -> None:
    """Parse the words, or the command line of this process if there are none, and learn.

    Raises:
        UserError: an option is invalid, or as for `learn`.
    """
    learn(parse_options(PCAOptions, __doc__.splitlines()[0], words))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
