"""Downloads that go on after broken connections, dead mirrors and kills, and glue no two files together."""

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
TIMEOUT = 30.0  # seconds without a byte after which a connection counts as broken
TRIES = 5  # broken connections in a row that brought nothing new after which a mirror is given up
PAUSE = 1.0  # seconds before the next connection
CHUNK = 1 << 18

log = logging.getLogger(__name__)


class _MirrorError(Exception):
    """This mirror does not give the file; the text is the short reason."""


class _BrokenError(_MirrorError):
    """The connection broke; another one may bring the rest."""


class _Handler(HTTPSHandler):
    """Checks every host's certificate but those of hosts that the user named; stays with http and https."""

    handler_order = 400  # before urllib's own for ftp:, file: and data:

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
            why = f"the certificate of {host} is not valid: {error.reason.verify_message}"
            raise _MirrorError(f"{why}; --insecure-host {host} accepts it") from error

    def ftp_open(self, req: Request) -> NoReturn:
        raise _MirrorError(f"{req.full_url} is neither http nor https")

    file_open = data_open = ftp_open

    def http_error_416(self, req: Request, fp: HTTPResponse, *_: object) -> HTTPResponse | None:
        return fp if req.has_header("Range") else None  # what is there may be the whole file


def download(
    urls: Sequence[str],
    path: Path,
    *,
    insecure_hosts: Collection[str] = (),
    how_else: str = "",
) -> Path:
    """Downloads a file from the first mirror that gives the whole of it, unless it is there already.

    What has come lies in `<name>.part` until it is whole and checked; a later call goes on from there.

    Args:
        urls: the mirrors, the preferred one first.
        path: where the file goes.
        insecure_hosts: hosts whose certificates are not checked.
        how_else: how to get the file otherwise, for the error's text.

    Raises:
        UserError: no mirror gives the file, the disk does not take it, or something else is in its place.
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
                log.warning("%s does not give %s: %s", url, path.name, error)
                failures.append(f"{url} ({error})")
    except OSError as error:  # the network's are _MirrorErrors by now
        raise unwritable(file.part, error) from error
    raise UserError(f"could not download {path.name}: {', '.join(failures)}; {how_else}".rstrip("; "))


class _Download:
    """One file on its way: its first bytes in `part` and, in `told`, what the server said of their file."""

    def __init__(self, path: Path, insecure: Collection[str]) -> None:
        self.path, self.received = path, 0
        self.part, self.told = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
        self.opener = build_opener(_Handler(insecure))

    def fetch(self, url: str) -> Path:
        """Brings the file from one mirror, over as many connections as it takes."""
        tries_left, furthest = 1, 0  # one that does not answer at first is not asked again
        while True:
            received = self.received
            try:
                return self._finish(self._receive(url))
            except _BrokenError as error:
                tries_left -= 1
                if self.received > received and self._reached() > furthest:
                    tries_left, furthest = TRIES, self._reached()
                if not tries_left:
                    raise
                log.info("%s broke off at byte %d: %s", self.path.name, self._reached(), error)
            time.sleep(PAUSE)

    def _receive(self, url: str) -> int | None:
        """Brings what is missing over one connection; returns the file's length, if told."""
        kept, validator = self._kept(url)
        position = self._reached() if validator else 0
        ranges = {"Range": f"bytes={position}-", "If-Range": validator} if position and validator else {}
        with _network():
            request = Request(url, headers=HEADERS | ranges)
            response = self.opener.open(request, timeout=TIMEOUT)
        with response:
            told, status = _told(url, response), response.status
            extent = response.headers["Content-Range"] or ""
            if status not in (200, 416) and not re.fullmatch(rf"bytes {position}-\d+/\d+", extent):
                if position:
                    self._discard()  # this mirror cannot go on with it
                raise _MirrorError(f"asked for the bytes from {position} on, it answers {status} {extent}")
            same = all(None in (value, kept.get(key)) or value == kept[key] for key, value in told.items())
            if status == 200 or (same and (status == 206 or told["length"] == position)):
                return self._write(response, 0 if status == 200 else position, told)
        log.info("%s: %s has another file than before", self.path.name, url)
        self._discard()
        return self._receive(url)

    def _write(self, response: HTTPResponse, start: int, told: dict) -> int | None:
        reached, total = start, told["length"]
        log.info("%s: from byte %d on", self.path.name, start)
        bar = tqdm(None, self.path.name, total, initial=start, unit="B", unit_scale=True, disable=None)
        # No `replace_file`: `part` is the temporary file, kept after an error so that the next call goes on.
        with bar, self.part.open("ab" if start else "wb") as file:
            if not start:  # only now that the bytes of another file are gone
                with replace_file(self.told) as record:
                    record.write(json.dumps(told).encode())
            while reached != total:
                with _network():
                    piece = response.read1(CHUNK if total is None else min(CHUNK, total - reached))
                if not piece:
                    break
                file.write(piece)
                reached, self.received = reached + len(piece), self.received + len(piece)
                bar.update(len(piece))
        if total is not None and reached < total:
            raise _BrokenError(f"it ended after {reached} of {total} bytes")
        return total

    def _finish(self, total: int | None) -> Path:
        """Puts the file in its place if it is what it should be."""
        length = self._reached()
        if total is None:
            log.warning("%s: nothing tells whether the whole of it came", self.path.name)
        elif length != total:
            self._discard()
            raise _MirrorError(f"it has {length} bytes, not {total}")
        self.part.replace(self.path)
        self.told.unlink(missing_ok=True)
        return self.path

    def _reached(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self, url: str) -> tuple[dict, str | None]:
        """What was told of the first bytes, and what If-Range takes; nothing if they are another mirror's."""
        with suppress(FileNotFoundError, BadFileError, ValueError, RecursionError):
            told = json.loads(read_text(self.told))
            if _is_told(told) and told["url"] == url:
                strong = (told["ETag"] or "").startswith('"')
                return told, told["ETag"] if strong else told["Last-Modified"]
        return {}, None

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.told.unlink(missing_ok=True)


def _told(url: str, response: HTTPResponse) -> dict:
    """What a server says of its file, by which the first bytes of another file are known."""
    whole = re.fullmatch(r"bytes .*/([0-9]{1,18})", response.headers["Content-Range"] or "")
    length = response.length if response.status == 200 else whole and int(whole[1])
    etag, modified = response.headers["ETag"], response.headers["Last-Modified"]
    return {"url": url, "length": length, "ETag": etag, "Last-Modified": modified}


def _is_told(value: object) -> bool:
    """Return whether a value read from a file has the form that `_told` gives."""
    if not isinstance(value, dict) or not value.keys() >= {"url", "length", "ETag", "Last-Modified"}:
        return False
    texts = [value["ETag"], value["Last-Modified"]]
    return isinstance(value["length"], int | None) and all(
        text is None or (isinstance(text, str) and text.isascii() and text.isprintable()) for text in texts
    )


@contextmanager
def _network() -> Iterator[None]:
    """Tells what goes wrong on the way from a server apart from what goes wrong on the disk."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _MirrorError(" ".join(str(error).split())) from error
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        slow = f"no data for {TIMEOUT:g} s" if isinstance(cause, TimeoutError) else None
        raise _BrokenError(slow or getattr(cause, "strerror", None) or str(cause)) from error
