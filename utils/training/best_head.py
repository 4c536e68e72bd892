"""The best head of a training so far, under the name by which the other scripts read it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.file_names import ATTENTION_WEIGHTS, trained_weights
from utils.files.reading import read_bytes
from utils.files.writing import make_folder, replace_file
from utils.weights.network_record import PartWriter, file_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestHead:
    """The head with the lowest validation loss, copied into the folder of its backbone.

    A head that is there already is kept, unless it is a head of this training.

    Args:
        output: the folder with the head of each report.
        record: writer of the part of network.json about the head; its folder is the folder of the copy.
    """

    output: Path
    record: PartWriter

    @property
    def path(self) -> Path:
        """The copy."""
        return self.record.folder / ATTENTION_WEIGHTS

    def check(self) -> None:
        """Check, before any work, that the folder of the copy has no record of another network.

        Raises:
            UserError: it has one, or an unreadable one.
        """
        if self._is_replaceable():
            self.record.check()
        else:
            log.warning(
                "note: %s is of another training and is kept; the trained heads are in %s",
                self.path,
                self.output,
            )

    def write(self, reports: Sequence[Mapping[str, float]]) -> None:
        """Copy the head of the report with the lowest validation loss, and record it in network.json.

        Args:
            reports: the reports of the training; the head of the last one has just been written.

        Raises:
            UserError: a file cannot be written, or network.json is of another network.
        """
        best = min(reports, key=lambda report: report["val_loss"])
        if best is not reports[-1] and self.path.exists():
            return  # an earlier call has copied it
        source = self.output / trained_weights(int(best["report"]), best["val_accuracy"])
        if not source.is_file() or not self._is_replaceable():
            return
        make_folder(self.path.parent)
        with replace_file(self.path) as file:
            file.write(read_bytes(source))
        self.record.write([ATTENTION_WEIGHTS])

    def _is_replaceable(self) -> bool:
        """Return True if there is no copy, or if it equals the head of a report of this training."""
        if not self.path.exists():
            return True
        digest = file_digest(self.path)
        name = Path(ATTENTION_WEIGHTS)
        heads = self.output.glob(f"{name.stem}_*_*{name.suffix}")
        return any(file_digest(head) == digest for head in heads)
