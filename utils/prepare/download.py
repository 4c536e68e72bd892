"""Downloads that resume after broken connections and kills, and never join parts of different files."""

import json
import logging
import re
import ssl
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

from tqdm import tqdm

from utils.errors import BadFileError, UserError
from utils.files.reading import read_text
from utils.files.writing import make_folder, replace_file, unwritable

HEADERS = {"User-Agent": "regional-attention-retrieval"}
TIMEOUT = 30.0
"""Seconds without data after which a connection counts as broken."""

MAX_IDLE_CONNECTIONS = 5
"""Number of successive broken connections without new data after which a mirror is given up."""

PAUSE = 1.0
"""Seconds before the next connection."""

CHUNK_BYTES = 1 << 18

log = logging.getLogger(__name__)


class DownloadError(UserError):
    """Raised if no mirror provides a file."""


class _MirrorError(Exception):
    """Raised if a mirror does not provide the file; the message is a short reason."""


class _BrokenError(_MirrorError):
    """Raised if a connection broke; another connection may provide the rest."""


class _Handler(HTTPSHandler):
    """A handler that checks certificates, except for hosts that the user names, and refuses other schemes."""

    handler_order = 400  # before the handlers of urllib for ftp:, file: and data:

    def __init__(self, insecure_hosts: Collection[str]) -> None:
        super().__init__()
        self._insecure_hosts = {host.lower() for host in insecure_hosts}

    def https_open(self, req: Request) -> HTTPResponse:
        host, context = urlsplit(req.full_url).hostname, ssl.create_default_context()
        if host in self._insecure_hosts:
            log.warning("the certificate of %s is not checked (--insecure-host)", host)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            return self.do_open(HTTPSConnection, req, context=context)
        except URLError as error:
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            reason = f"the certificate of {host} is not valid: {error.reason.verify_message}"
            raise _MirrorError(f"{reason}; --insecure-host {host} accepts it") from error

    def ftp_open(self, req: Request) -> NoReturn:
        raise _MirrorError(f"{req.full_url} is neither http nor https")

    file_open = data_open = ftp_open

    def http_error_416(self, req: Request, fp: HTTPResponse, *_: object) -> HTTPResponse | None:
        return fp if req.has_header("Range") else None  # the received bytes may be the complete file


def download(
    urls: Sequence[str],
    path: Path,
    *,
    insecure_hosts: Collection[str] = (),
    instructions: str = "",
) -> Path:
    """Download a file from the first mirror that provides it, unless it exists.

    Received bytes are kept in `<name>.part` until the file is complete and checked; a later call resumes
    the download.

    Args:
        urls: the mirrors, in order of preference.
        path: the file to write.
        insecure_hosts: hosts whose certificates are not checked.
        instructions: text for the error message on how to get the file otherwise.

    Returns:
        The path.

    Raises:
        DownloadError: no mirror provides the file.
        UserError: it cannot be written, or another file is at the path.
    """
    if path.exists():
        return path
    make_folder(path.parent)
    file, failures = _Download(path, insecure_hosts), []
    try:
        for url in urls:
            try:
                return file.fetch(url)
            except _MirrorError as error:
                log.warning("cannot download %s from %s: %s", path.name, url, error)
                failures.append(f"{url} ({error})")
    except OSError as error:  # errors of the network are _MirrorErrors
        raise unwritable(file.part, error) from error
    reasons = ", ".join(failures)
    raise DownloadError(f"could not download {path.name}: {reasons}; {instructions}".rstrip("; "))


class _Download:
    """A download in progress: received bytes in `part`, and the record of the server's file in `record`."""

    def __init__(self, path: Path, insecure: Collection[str]) -> None:
        self.path, self.received = path, 0
        self.part, self.record = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
        self.opener = build_opener(_Handler(insecure))

    def fetch(self, url: str) -> Path:
        """Download the file from one mirror, over as many connections as necessary."""
        attempts_left, furthest = 1, 0  # a mirror that does not answer at first gets no other attempt
        while True:
            received = self.received
            try:
                return self._finish(self._receive(url))
            except _BrokenError as error:
                attempts_left -= 1
                if self.received > received and self._part_size() > furthest:
                    attempts_left, furthest = MAX_IDLE_CONNECTIONS, self._part_size()
                if not attempts_left:
                    raise
                log.info("%s broke off at byte %d: %s", self.path.name, self._part_size(), error)
            time.sleep(PAUSE)

    def _receive(self, url: str) -> int | None:
        """Download the missing bytes over one connection; return the length of the file, if it is known."""
        kept, validator = self._read_record(url)
        position = self._part_size() if validator else 0
        ranges = {"Range": f"bytes={position}-", "If-Range": validator} if position and validator else {}
        with _network_errors():
            request = Request(url, headers=HEADERS | ranges)
            response = self.opener.open(request, timeout=TIMEOUT)
        with response:
            record, status = _make_record(url, response), response.status
            extent = response.headers["Content-Range"] or ""
            if status not in (200, 416) and not re.fullmatch(rf"bytes {position}-\d+/\d+", extent):
                if position:
                    self._discard()  # this mirror cannot resume the download
                raise _MirrorError(f"asked for the bytes from {position} on, it answers {status} {extent}")
            same = all(None in (value, kept.get(key)) or value == kept[key] for key, value in record.items())
            if status == 200 or (same and (status == 206 or record["length"] == position)):
                return self._write(response, 0 if status == 200 else position, record)
        log.info("%s: the file at %s has changed: download starts again", self.path.name, url)
        self._discard()
        return self._receive(url)

    def _write(self, response: HTTPResponse, start: int, record: dict) -> int | None:
        position, total = start, record["length"]
        log.info("%s: download from byte %d on", self.path.name, start)
        bar = tqdm(None, self.path.name, total, initial=start, unit="B", unit_scale=True, disable=None)
        # Without `replace_file`: `part` is a temporary file itself, kept after an error for the next call.
        with bar, self.part.open("ab" if start else "wb") as file:
            if not start:  # after the bytes of any other file were truncated
                with replace_file(self.record) as record_file:
                    record_file.write(json.dumps(record).encode())
            while position != total:
                with _network_errors():
                    size = CHUNK_BYTES if total is None else min(CHUNK_BYTES, total - position)
                    chunk = response.read1(size)
                if not chunk:
                    break
                file.write(chunk)
                position, self.received = position + len(chunk), self.received + len(chunk)
                bar.update(len(chunk))
        if total is not None and position < total:
            raise _BrokenError(f"it ended after {position} of {total} bytes")
        return total

    def _finish(self, total: int | None) -> Path:
        """Check the length of the received file and move it to its path."""
        length = self._part_size()
        if total is None:
            log.warning("%s may be incomplete: its length is unknown", self.path.name)
        elif length != total:
            self._discard()
            raise _MirrorError(f"it has {length} bytes, not {total}")
        self.part.replace(self.path)
        self.record.unlink(missing_ok=True)
        return self.path

    def _part_size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _read_record(self, url: str) -> tuple[dict, str | None]:
        """Read the record of the received bytes and its value for If-Range; empty for another mirror."""
        with suppress(FileNotFoundError, BadFileError, ValueError, RecursionError):
            record = json.loads(read_text(self.record))
            if _is_record(record) and record["url"] == url:
                is_strong = (record["ETag"] or "").startswith('"')
                return record, record["ETag"] if is_strong else record["Last-Modified"]
        return {}, None

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def _make_record(url: str, response: HTTPResponse) -> dict:
    """Return a record of the file on the server, to recognise received bytes of another file."""
    content_range = re.fullmatch(r"bytes .*/([0-9]{1,18})", response.headers["Content-Range"] or "")
    length = response.length if response.status == 200 else content_range and int(content_range[1])
    etag, modified = response.headers["ETag"], response.headers["Last-Modified"]
    return {"url": url, "length": length, "ETag": etag, "Last-Modified": modified}


def _is_record(value: object) -> bool:
    """Return True if a value from a file has the form of a record."""
    if not isinstance(value, dict) or not value.keys() >= {"url", "length", "ETag", "Last-Modified"}:
        return False
    texts = [value["ETag"], value["Last-Modified"]]
    return isinstance(value["length"], int | None) and all(
        text is None or (isinstance(text, str) and text.isascii() and text.isprintable()) for text in texts
    )


@contextmanager
def _network_errors() -> Iterator[None]:
    """Convert network errors of a block to _MirrorError, to distinguish them from errors of the disk."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _MirrorError(" ".join(str(error).split())) from error
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        timeout = f"no data for {TIMEOUT:g} s" if isinstance(cause, TimeoutError) else None
        raise _BrokenError(timeout or getattr(cause, "strerror", None) or str(cause)) from error
