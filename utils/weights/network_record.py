"""network.json: the network that the attention and whitening files of a folder belong to.

A training and a learning of the PCA each write their part of it, with checksums of their files. Where it
exists, these files are only used for the network that it names.
"""

import hashlib
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, NotRequired, TypedDict

import torch

from models.poolings.attention_head import Activation
from utils.errors import UserError, advising
from utils.file_names import ATTENTION_WEIGHTS, NETWORK_RECORD, network_record_lock
from utils.files.digests import remembered_digest
from utils.files.lock import in_turn
from utils.files.reading import read_bytes
from utils.files.records import read_json, write_json
from utils.files.writing import make_folder
from utils.saved_settings import METHOD_VERSION

log = logging.getLogger(__name__)

PartName = Literal["attention", "whitening"]
PARTS: tuple[PartName, ...] = ("attention", "whitening")

NAMED = {
    "backbone": "backbone {}",
    "channels": "{} channels",
    "backbone_digest": "backbone weights with digest {}",
    "activation": "activation {}",
}
"""Values of fields, as messages name them."""

SHOWN_DIGITS = 12
"""Digits of a checksum in messages."""


class Facts(TypedDict):
    """Settings that the files of a part were made with; each part has some of them."""

    S: NotRequired[int]
    """Longer side of the images in pixels; of the attention head, side of the crops."""
    L: NotRequired[int]
    activation: NotRequired[Activation]
    classes: NotRequired[int]
    class_names: NotRequired[str]
    """Digest of the names of the classes in order, as `utils.text.digest_of_names` computes it."""
    components: NotRequired[int]


class Part(Facts):
    """The files that one run made, and their origin."""

    files: dict[str, str]
    """SHA-256 in hexadecimal by file name."""
    date: str
    torch: NotRequired[str]
    """Version of PyTorch, if known."""
    method: int
    """Version of the method, as `METHOD_VERSION`."""


class NetworkRecord(TypedDict):
    """Contents of network.json."""

    backbone: str
    channels: int
    backbone_digest: str
    """Digest of the weights of the backbone's layers, as `module_digest` computes it."""
    attention: NotRequired[Part]
    whitening: NotRequired[Part]


class Network(NamedTuple):
    """The backbone that files belong to; the fields are those of `NetworkRecord`."""

    backbone: str
    channels: int
    backbone_digest: str


@dataclass(frozen=True)
class PartWriter:
    """Writer of one part of network.json; the other parts are kept.

    Args:
        folder: the folder of the files.
        network: the network that the files belong to.
        name: the part.
        facts: the settings that the files are made with.
    """

    folder: Path
    network: Network
    name: PartName
    facts: Facts

    def check(self) -> None:
        """Check, before any work, that the folder has no record of another network.

        Raises:
            UserError: it has one, or an unreadable one.
        """
        record = read_network_record(self.folder)
        if record is None:
            return
        for field, recorded, value in zip(
            self.network._fields, network_of(record), self.network, strict=True
        ):
            if recorded != value:
                raise _misfit(self.folder, field, recorded, value, "name another --output")

    def write(self, files: Sequence[str]) -> None:
        """Write the part of some files, which exist in the folder.

        Raises:
            UserError: the folder has a record of another network, or cannot be written to.
        """
        make_folder(self.folder)
        with in_turn(network_record_lock(self.folder)):
            self.check()
            part = {
                **self.facts,
                "date": datetime.now(UTC).date().isoformat(),
                "torch": torch.__version__.partition("+")[0],
                "method": METHOD_VERSION,
                "files": {name: file_digest(self.folder / name) for name in files},
            }
            record = {**(read_network_record(self.folder) or {}), **self.network._asdict(), self.name: part}
            write_json(self.folder / NETWORK_RECORD, record)


def read_network_record(folder: Path) -> NetworkRecord | None:
    """Return the record of a folder, or None if it has none.

    Raises:
        UserError: the record is unreadable.
    """
    try:
        with advising("restore it, or delete it to use the files beside it unchecked"):
            return read_json(folder / NETWORK_RECORD, NetworkRecord)
    except FileNotFoundError:
        return None


def network_of(record: NetworkRecord) -> Network:
    """Return the network of a record."""
    return Network(record["backbone"], record["channels"], record["backbone_digest"])


def check_recorded_files(
    folder: Path,
    names: Set[str],
    backbone: str,
    channels: int,
    activation: Activation,
    levels: int,
) -> NetworkRecord | None:
    """Check that files of a folder are those of its record, and belong to the network that reads them.

    Args:
        folder: the folder of the files.
        names: names of the files that will be read.
        backbone: name of the backbone.
        channels: C, the number of channels of the backbone.
        activation: the function between the layers of the attention head.
        levels: L, the number of R-MAC levels; a note is logged if the head was trained with another one.

    Returns:
        The record, or None if it does not exist or has none of the files.

    Raises:
        UserError: a file has been changed, or was made for another network.
    """
    record = read_network_record(folder)
    if record is None:
        return None
    parts = [record[name] for name in PARTS if name in record and names & record[name]["files"].keys()]
    if not parts:
        return None
    if record["backbone"] != backbone:
        advice = f"put files for {backbone} there, or name their weights folder by --weights-dir"
        raise _misfit(folder, "backbone", record["backbone"], backbone, advice)
    if record["channels"] != channels:
        raise _misfit(folder, "channels", record["channels"], channels, f"put files for {backbone} there")
    for part in parts:
        if ATTENTION_WEIGHTS in part["files"]:
            trained = part.get("activation", activation)
            if trained != activation:
                advice = f"give --activation {trained}, or use a head that was trained with {activation}"
                raise _misfit(folder, "activation", trained, activation, advice)
            if (trained_levels := part.get("L", levels)) != levels:
                log.info("note: the attention head was trained with --L %d, not %d", trained_levels, levels)
        for name in sorted(names & part["files"].keys()):
            _check_file(folder / name, part["files"][name])
    return record


def check_backbone_digest(folder: Path, record: NetworkRecord, digest: str) -> None:
    """Check that files belong to a backbone with these weights.

    Args:
        folder: the folder of the files.
        record: its record.
        digest: the digest of the weights, as `module_digest` computes it.

    Raises:
        UserError: the files were made for other weights.
    """
    if record["backbone_digest"] != digest:
        advice = (
            "give the weights that its files were made with by --backbone-weights, or make the files again"
        )
        raise _misfit(folder, "backbone_digest", record["backbone_digest"], digest, advice)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: the file is unreadable.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _check_file(path: Path, recorded: str) -> None:
    actual = remembered_digest([path], "SHA-256", lambda: file_digest(path))
    if actual != recorded:
        raise UserError(
            f"{path} is not the file that {NETWORK_RECORD} beside it describes (SHA-256 "
            f"{actual[:SHOWN_DIGITS]}..., recorded {recorded[:SHOWN_DIGITS]}...): "
            f"copy both from one folder, or delete {NETWORK_RECORD} to use the file unchecked"
        )


def _misfit(folder: Path, field: str, recorded: object, actual: object, advice: str) -> UserError:
    one, other = NAMED[field].format(recorded), NAMED[field].format(actual)
    return UserError(f"{folder / NETWORK_RECORD} is for {one}, but this run has {other}: {advice}")
