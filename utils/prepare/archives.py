"""Unpacking what was downloaded: an archive is hostile until every member of it has shown that it is not."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from utils.errors import UserError
from utils.prepare.archive_members import checked_members, checked_names, chunks, is_safe, told_of_damage


class Limits(NamedTuple):
    """The most that an archive may unpack to."""

    files: int = 2_000_000
    bytes: int = 400 * 2**30


def members(archive: Path) -> Iterator[str]:
    """Yield the names of an archive's regular files, each as soon as the archive has been read as far as it.

    Args:
        archive: a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip, known by its contents.

    Raises:
        UserError: it is none of these, cannot be read, is damaged, or has a member that `unpack` refuses.
    """
    with _open(archive) as file:
        yield from checked_names(archive, file)


def unpack(
    archive: Path,
    draft: Path,
    place: Callable[[PurePosixPath], PurePosixPath | None],
    limits: Limits | None = None,
    nested: bool = False,
) -> int:
    """Writes an archive's regular files where they are wanted, in one pass; folders are made as needed.

    Args:
        archive: a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip, known by its contents.
        draft: the folder to write to, which is there; after an error it holds a part, to be thrown away.
        place: gives a member's path below `draft`, or None where it is not wanted; the same each time.
        limits: the most to write, with folders counted as files; Limits() if None.
        nested: whether members x.tar are unpacked in passing; `place` is given what is in them as x/<name>.

    Returns:
        The number of files written.

    Raises:
        UserError: the archive is none of these, cannot be read or is damaged; a member is a link, a device,
            sparse or encrypted, or its name or place could lead out of `draft`; two that differ have one
            place; it exceeds the limits. The members before the one that is refused are written by then.
    """
    out = _Draft(archive, draft, limits or Limits())
    with (
        _open(archive) as file,
        tqdm.wrapattr(file, "read", archive.stat().st_size, desc=archive.name, disable=None) as counted,
    ):
        for name, data in checked_members(archive, counted, nested):
            target = place(name)
            if target is None:
                continue
            if not is_safe(target):
                raise UserError(f"{archive} is refused: its member {name} would be written to {target}")
            if not out.write(target, data):
                others = (other for other, _ in checked_members(archive, file, nested))
                first = next(other for other in others if other == name or place(other) == target)
                before = "the file that is there" if first == name else first
                raise UserError(f"{archive}: {name} differs from {before}; both belong at {draft / target}")
    return out.files


class _Draft:
    """The folder that is written to, and what of the limits that has taken."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self._archive, self._folder, self._limits = archive, folder, limits
        self._folders = {PurePosixPath()}
        self._bytes = 0
        self.files = 0

    def write(self, path: PurePosixPath, data: IO[bytes]) -> bool:
        """Writes a file, or compares it where it is there; returns whether it is now as it should be."""
        for folder in reversed(path.parents):
            self._make_folder(folder)
        target = self._folder / path
        if target.is_symlink() or target.is_dir():
            raise UserError(f"{self._archive}: cannot write {target}: a folder or a link is there")
        if target.exists():
            return _holds(target, chunks(self._archive, data))
        self.files += 1
        self._check_limits()
        with target.open("xb") as file:
            for chunk in chunks(self._archive, data):
                self._bytes += len(chunk)
                self._check_limits()
                file.write(chunk)
        target.chmod(0o644)
        return True

    def _make_folder(self, path: PurePosixPath) -> None:
        if path in self._folders:
            return
        folder = self._folder / path
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{self._archive}: cannot write to {folder}: a file or a link is there")
        self._folders.add(path)
        self._check_limits()
        folder.mkdir(exist_ok=True)

    def _check_limits(self) -> None:
        files, size = self._limits
        if self.files + len(self._folders) - 1 > files or self._bytes > size:
            raise UserError(
                f"{self._archive} unpacks to more than {files} files and folders or {size} bytes: if it "
                "may, raise the limits with --max-files and --max-bytes"
            )


def _holds(path: Path, chunks: Iterator[bytes]) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)


def _open(archive: Path) -> IO[bytes]:
    with told_of_damage(archive):
        return archive.open("rb")
