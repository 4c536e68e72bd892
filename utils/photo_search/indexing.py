"""Description of the images in a folder, of which an index or a collection in Milvus is made."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.descriptors.attention_maps import compact_maps, have_maps, open_map_store
from utils.descriptors.describe import Descriptors
from utils.descriptors.describe import describe as describe_images
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import DescriptorStore, forget_empty, open_store
from utils.device import choose_device
from utils.errors import UserError
from utils.file_names import (
    APPROXIMATE_FOLDER,
    CATALOGUE,
    INDEX_ATTENTION,
    INDEX_LOCK,
    INDEX_PENDING,
    INDEX_STORE,
)
from utils.files.lock import only_writer
from utils.files.writing import check_writable, make_folder
from utils.image_index.approximate_index import is_approximate
from utils.image_index.approximate_update import update_approximate
from utils.image_index.catalogue import check_same_folder, write_index
from utils.image_index.image_index import ImageIndex, read_index
from utils.image_index.milvus import Address
from utils.image_index.milvus_index import Changes, MilvusIndex, update_milvus_index
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.photo_search.excluding import excluder, note_unmatched
from utils.photo_search.options import IndexOptions
from utils.photo_search.queries import list_images
from utils.processes import Processes
from utils.search.approximate import load_faiss
from utils.text import first_names
from utils.weights.check_on_images import note_preprocessing

log = logging.getLogger(__name__)

SAME_INDEX = "give the options that the index was made with, or name another --index"


def build(options: IndexOptions) -> ImageIndex | MilvusIndex:
    """Index all images in a folder and the folders below it.

    Images that are indexed and have not changed are not described again. Images that no longer exist are
    removed from the index. Unreadable images are left out and logged. A killed run leaves the index
    unchanged, and the next run continues from the last image that the killed run described.

    Raises:
        UserError: there are no images, the index is of another folder or made with other options, or the
            index cannot be written.
    """
    if options.address is not None:
        build_in_milvus(options, options.address)
        return MilvusIndex(options.address)
    folder = options.folder
    if is_approximate(options.index):
        load_faiss(f"delete {options.index / APPROXIMATE_FOLDER}")
    elif options.approximate:
        load_faiss("leave --approximate out")
    paths = find_images(options)
    settings = descriptor_settings(options, [options.pooling])
    make_folder(options.index)
    with only_writer(options.index / INDEX_LOCK, options.index):
        for name in (INDEX_STORE, INDEX_ATTENTION):
            forget_empty(options.index / name)
        precision, advice = options.store_precision, SAME_INDEX
        store = open_store(
            options.index / INDEX_STORE, settings, precision=precision, tidy=True, advice=advice
        )
        maps = None
        if have_maps(options):
            maps = open_map_store(options.index / INDEX_ATTENTION, settings, tidy=True, advice=advice)
        keys: list[str] = []
        if paths:  # else all indexed images were deleted
            note_preprocessing(options, paths)
            names = [str(path.relative_to(folder)) for path in paths]
            keys = describe_into(store, names, options, settings, maps).keys
        write_index(options.index, folder, keys, settings, store)
        if maps is not None:
            compact_maps(maps, keys)
        made = read_index(options.index)
        if options.approximate or is_approximate(options.index):
            update_approximate(options.index, made.keys, made.rows, made.settings)
    return made


def build_in_milvus(options: IndexOptions, address: Address) -> Changes:
    """Index images as `build` does, in Milvus, and return the numbers of images.

    Raises:
        UserError: as for `build`, or Milvus does not answer.
    """
    paths = find_images(options)
    settings = descriptor_settings(options, [options.pooling])
    make_folder(options.index)
    with only_writer(options.index / INDEX_LOCK, options.index):
        if paths:
            note_preprocessing(options, paths)
        return update_milvus_index(
            address,
            options.index / INDEX_PENDING,
            options.folder,
            [str(path.relative_to(options.folder)) for path in paths],
            settings,
            lambda names, store: describe_into(store, names, options, settings),
        )


def describe_into(
    store: DescriptorStore,
    names: Sequence[str],
    options: IndexOptions,
    settings: Mapping[str, object],
    maps: DescriptorStore | None = None,
) -> Descriptors:
    """Describe images of the folder that are not in a store, add them to it, and log unreadable images.

    Args:
        store: the store.
        names: path of each image, relative to the folder.
        options: options of the description.
        settings: settings of the descriptors.
        maps: store of the attention maps of images that are described now; None to keep none.

    Returns:
        The descriptors of all readable images.
    """
    device = choose_device(options.device)
    descriptors = describe_images(
        prepared_network(options, settings, device),
        [InputImage(options.folder / name) for name in names],
        Loading.on(device, options.longer_side, options.batch_size, options.workers),
        Processes(0, 1, device),
        skip_bad_images=True,
        title="images",
        store=store,
        names=names,
        maps=maps,
    )
    for error in descriptors.unreadable.values():
        log.warning("note: left out %s", error)
    return descriptors


def find_images(options: IndexOptions) -> list[Path]:
    """Return the images below the folder, and log other files.

    Raises:
        UserError: the folder does not exist, it has neither images nor an index, or the index is of another
            folder or cannot be written.
    """
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    check_writable(options.index)
    if options.milvus is None:
        check_same_folder(options.index, folder)
    images = list_images(folder).images
    if not images and options.milvus is None and not (options.index / CATALOGUE).exists():
        raise UserError(f"no images in {folder} or the folders in it")
    return leave_out(images, options)


def leave_out(images: Sequence[Path], options: IndexOptions) -> list[Path]:
    """Return the images that no pattern of --exclude leaves out, and log the number of the others.

    Raises:
        UserError: the patterns leave out all images.
    """
    is_excluded = excluder(options.exclude)
    names = [str(path.relative_to(options.folder)) for path in images]
    note_unmatched(options.exclude, names)
    excluded = set(filter(is_excluded, names))
    if excluded and len(excluded) == len(images):
        raise UserError(f"exclude leaves out all {len(images)} images in {options.folder}")
    if excluded:
        log.info("left out %d images by exclude (%s)", len(excluded), first_names(excluded))
    return [path for path, name in zip(images, names, strict=True) if name not in excluded]
