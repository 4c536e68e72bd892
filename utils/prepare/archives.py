"""Unpacking of untrusted archives."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from utils.errors import UserError
from utils.prepare.archive_members import archive_errors, checked_members, checked_names, is_safe, read_chunks


class Limits(NamedTuple):
    """Maximum number of files and bytes that an archive can unpack to."""

    files: int = 2_000_000
    bytes: int = 400 * 2**30


def members(archive: Path) -> Iterator[str]:
    """Yield the names of the regular files of an archive while it is read.

    Args:
        archive: a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip file, recognised by its contents.

    Raises:
        UserError: the archive has another format, is unreadable, or has a member that `unpack` refuses.
    """
    with _open(archive) as file:
        yield from checked_names(archive, file)


def unpack(
    archive: Path,
    draft: Path,
    target_path: Callable[[PurePosixPath], PurePosixPath | None],
    limits: Limits | None = None,
    nested: bool = False,
) -> int:
    """Unpack the regular files of an archive into a folder, in one pass.

    Members are checked one by one: those before a refused member are written.

    Args:
        archive: a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip file, recognised by its contents.
        draft: an existing folder to write to; after an error, it is incomplete and should be deleted.
        target_path: returns the path of a member below `draft`, or None to skip the member; it must be
            deterministic.
        limits: the maximum to write, with folders counted as files; Limits() if None.
        nested: also unpack members x.tar; their members are named x/<name>.

    Returns:
        The number of files written.

    Raises:
        UserError: the archive has another format, is unreadable or exceeds the limits; a member is a link,
            a device, sparse or encrypted; a member or its path below `draft` is unsafe; or two members with
            the same path differ.
    """
    out = _Draft(archive, draft, limits or Limits())
    with (
        _open(archive) as file,
        tqdm.wrapattr(file, "read", archive.stat().st_size, desc=archive.name, disable=None) as counted,
    ):
        for name, data in checked_members(archive, counted, nested):
            target = target_path(name)
            if target is None:
                continue
            if not is_safe(target):
                raise UserError(f"{archive} is refused: its member {name} would be written to {target}")
            if not out.write(target, data):
                names = (member for member, _ in checked_members(archive, file, nested))
                first = next(member for member in names if member == name or target_path(member) == target)
                existing = "the existing file" if first == name else first
                raise UserError(
                    f"{archive}: {name} differs from {existing}; both would be written to {draft / target}"
                )
    return out.files


class _Draft:
    """The folder that an archive is unpacked to; it counts files and bytes towards the limits."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self._archive, self._folder, self._limits = archive, folder, limits
        self._folders = {PurePosixPath()}
        self._bytes = 0
        self.files = 0

    def write(self, path: PurePosixPath, data: IO[bytes]) -> bool:
        """Write a file, or compare it with an existing one; return False if the existing file differs."""
        for folder in reversed(path.parents):
            self._make_folder(folder)
        target = self._folder / path
        if target.is_symlink() or target.is_dir():
            raise UserError(f"{self._archive}: cannot write {target}: a folder or a link is there")
        if target.exists():
            return _has_contents(target, read_chunks(self._archive, data))
        self.files += 1
        self._check_limits()
        # Without `replace_file`: the folder is a draft, and `replace_folder` reports its errors.
        with target.open("xb") as file:
            for chunk in read_chunks(self._archive, data):
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
                f"{self._archive} unpacks to more than {files} files and folders or {size} bytes: if you "
                "trust it, raise the limits with --max-files and --max-bytes"
            )


def _has_contents(path: Path, chunks: Iterator[bytes]) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)


def _open(archive: Path) -> IO[bytes]:
    with archive_errors(archive):
        return archive.open("rb")
