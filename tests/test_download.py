import io
import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.prepare import download as module
from utils.prepare.download import download

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
OTHER = CONTENT[::-1]
REPOSITORY = Path(__file__).parents[1]


@dataclass
class File:
    """A file of a host, with the settings by which the host sends it."""

    content: bytes = CONTENT
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    obeys_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    """Bytes that each answer sends before the connection ends. Later answers are complete."""
    stalls: bool = False
    """True if a cut answer leaves the connection open and silent."""
    announces: int | None = None
    """A false Content-Length."""
    piece: int = 1 << 20
    pause: float = 0.0
    shift: int = 0
    """Number of bytes by which a range starts before the requested position."""

    def answer(self, handler):
        start = self.start(handler.headers)
        if start > len(self.content) or (start and start == len(self.content)):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            return handler.end_headers()
        start = max(0, start - self.shift)
        body = self.content[start:]
        handler.send_response(206 if "Range" in handler.headers and (start or self.shift) else 200)
        if start or self.shift:
            end, length = len(self.content) - 1, len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{length}")
        handler.send_header("Content-Length", str(self.announces or len(body)))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        body = body[:cut]
        for position in range(0, len(body), self.piece):
            handler.wfile.write(body[position : position + self.piece])
            if self.pause:
                time.sleep(self.pause)
        if cut is not None and self.stalls:
            handler.server.over.wait(20)

    def start(self, headers):
        expected = self.etag if self.etag and self.etag.startswith('"') else self.modified
        if not self.ranges or "Range" not in headers:
            return 0
        if self.obeys_if_range and headers["If-Range"] != expected:
            return 0
        return int(headers["Range"].removeprefix("bytes=").removesuffix("-"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        self.server.headers.append(self.headers)
        answer = self.server.files.get(self.path)
        if answer is None:
            self.send_error(404)
        elif isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
        elif isinstance(answer, File):
            answer.answer(self)
        else:
            answer(self)

    def log_message(self, *_):
        pass


class Host(ThreadingHTTPServer):
    daemon_threads = True
    scheme = "http"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.headers, self.over = {}, [], [], threading.Event()

    def url(self, name="file", host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.server_port}/{name}"

    def serve(self, file, name="file"):
        """Serve a file, a redirect to an address or the answers of a function, and return the URL."""
        self.files[f"/{name}"] = file
        return self.url(name)

    def handle_error(self, *_):
        pass  # many tests end connections early


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def start_host():
    hosts = []

    def start(context=None):
        host = Host()
        if context is not None:
            host.scheme = "https"
            host.socket = context.wrap_socket(host.socket, server_side=True)
        threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        host.over.set()
        host.shutdown()
        host.server_close()


@pytest.fixture
def host(start_host):
    return start_host()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "file.tar"


def part_of(path):
    return path.with_name("file.tar.part")


def break_off(host, path, size, **file):
    """Download the first `size` bytes of a file, fail, and return the URL."""
    unavailable = lambda handler: handler.send_error(503)  # noqa: E731
    url = host.serve(File(cuts=[size], **file))
    complete = host.files["/file"]

    def once(handler):
        complete.answer(handler)
        host.files["/file"] = unavailable

    host.files["/file"] = once
    with pytest.raises(UserError, match="503"):
        download([url], path)
    assert part_of(path).stat().st_size == size
    host.ranges.clear()
    return url


def assert_only(path, content=CONTENT):
    """Check that a file has this content, and that its folder has no other file."""
    assert path.read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_file_is_downloaded_completely(host, path):
    url = host.serve(File())
    assert download([url], path) == path
    assert_only(path)
    assert host.ranges == [None]
    assert host.headers[0]["User-Agent"] == "regional-attention-retrieval"


def test_an_empty_file_is_downloaded(host, path):
    download([host.serve(File(b""))], path)
    assert_only(path, b"")


def test_a_file_that_is_there_is_not_asked_for(host, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download([host.serve(File(OTHER))], path) == path
    assert download([host.url()], path) == path
    assert host.ranges == []
    assert_only(path)


def test_broken_connections_are_gone_on_with(host, path):
    download([host.serve(File(cuts=[10_000, 0, 20_000, 1]))], path)
    assert host.ranges == [None, "bytes=10000-", "bytes=10000-", "bytes=30000-", "bytes=30001-"]
    assert {headers["If-Range"] for headers in host.headers[1:]} == {'"1"'}
    assert_only(path)


def test_more_breaks_than_tries_are_no_failure_as_long_as_data_come(host, path):
    download([host.serve(File(cuts=[1000] * 20))], path)
    assert host.ranges[-1] == "bytes=20000-"
    assert_only(path)


def test_a_mirror_that_brings_nothing_more_is_given_up_after_five_tries(host, path):
    url = host.serve(File(cuts=[10_000] + [0] * 50))
    with pytest.raises(UserError, match=r"it ended after 10000 of 102400 bytes"):
        download([url], path)
    assert host.ranges == [None] + ["bytes=10000-"] * 5
    assert part_of(path).read_bytes() == CONTENT[:10_000]


def test_a_later_call_asks_only_for_the_rest(host, path, caplog):
    url = break_off(host, path, 40_000)
    host.serve(File())
    with caplog.at_level(logging.INFO):
        download([url], path)
    assert host.ranges == ["bytes=40000-"]
    assert "file.tar: download from byte 40000 on" in caplog.text
    assert_only(path)


def test_the_bar_begins_where_the_download_goes_on(host, path, monkeypatch):
    url = break_off(host, path, 40_000)
    host.serve(File())
    bars = []

    class Bar(module.tqdm):
        def __init__(self, *arguments, **options):
            assert options["disable"] is None
            super().__init__(*arguments, **options | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(module, "tqdm", Bar)
    download([url], path)
    (bar,) = bars
    assert (bar.initial, bar.n, bar.total, bar.unit, bar.unit_scale) == (40_000, 102_400, 102_400, "B", True)
    assert_only(path)


def test_a_server_without_ranges_is_asked_anew(host, path):
    download([host.serve(File(ranges=False, cuts=[60_000]))], path)
    assert host.ranges == [None, "bytes=60000-"]
    assert_only(path)


def test_a_server_without_ranges_that_always_breaks_is_given_up(start_host, path):
    first, second = start_host(), start_host()
    urls = [first.serve(File(ranges=False, cuts=[60_000] * 50)), second.serve(File())]
    download(urls, path)
    assert len(first.ranges) == 6
    assert second.ranges == [None]
    assert_only(path)


def test_a_file_without_etag_goes_on_by_its_date(host, path):
    date = "Mon, 01 Jan 2018 00:00:00 GMT"
    download([host.serve(File(etag='W/"1"', modified=date, cuts=[5000]))], path)
    assert host.ranges == [None, "bytes=5000-"]
    assert host.headers[1]["If-Range"] == date
    assert_only(path)


def test_a_file_that_nothing_identifies_begins_anew(host, path):
    download([host.serve(File(etag=None, cuts=[5000]))], path)
    assert host.ranges == [None, None]
    assert_only(path)


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_a_file_that_changed_after_the_break_begins_anew(host, path, obeys_if_range):
    url = break_off(host, path, 40_000)
    host.serve(File(OTHER, etag='"2"', obeys_if_range=obeys_if_range))
    download([url], path)
    assert host.ranges == ["bytes=40000-"] + [None] * (not obeys_if_range)
    assert_only(path, OTHER)


def test_a_file_of_another_length_after_the_break_begins_anew(host, path):
    url = break_off(host, path, 40_000)
    host.serve(File(OTHER + b"more"))
    download([url], path)
    assert host.ranges == ["bytes=40000-", None]
    assert_only(path, OTHER + b"more")


def test_the_first_bytes_of_another_mirror_are_not_gone_on_with(start_host, path):
    first, second = start_host(), start_host()
    break_off(first, path, 40_000)
    download([second.serve(File(OTHER))], path)
    assert second.ranges == [None]
    assert_only(path, OTHER)


def test_a_mirror_that_is_down_leaves_the_first_bytes_of_the_next_one(start_host, path):
    first, second = start_host(), start_host()
    url = break_off(second, path, 40_000)
    second.serve(File())
    download([first.url(), url], path)
    assert (first.ranges, second.ranges) == ([None], ["bytes=40000-"])
    assert_only(path)


@pytest.mark.parametrize(
    "record",
    [
        *(None, "", "{", "[]", "{}", '{"url": 1}', "\xff", "[" * 100_000),
        '{"url": "URL", "length": 3, "ETag": 1, "Last-Modified": null}',
        '{"url": "URL", "length": 3, "ETag": "\\"a\\nb\\"", "Last-Modified": null}',
        '{"url": "URL", "length": 3, "ETag": null, "Last-Modified": ["x"]}',
    ],
)
def test_first_bytes_of_which_nothing_is_known_are_not_gone_on_with(host, path, record):
    url = break_off(host, path, 40_000)
    record = record and record.replace("URL", url)
    part_of(path).write_bytes(OTHER[:40_000])
    state = path.with_name("file.tar.part.json")
    assert state.exists()
    state.unlink() if record is None else state.write_bytes(record.encode("latin-1"))
    host.serve(File())
    download([url], path)
    assert host.ranges == [None]
    assert_only(path)


def test_a_complete_part_is_not_sent_again(host, path):
    url = break_off(host, path, 40_000)
    part_of(path).write_bytes(CONTENT)
    host.serve(File())
    download([url], path)
    assert host.ranges == ["bytes=102400-"]
    assert_only(path)


def test_more_first_bytes_than_the_file_has_begin_anew(host, path):
    url = break_off(host, path, 40_000)
    part_of(path).write_bytes(CONTENT + b"more")
    host.serve(File())
    download([url], path)
    assert host.ranges == ["bytes=102404-", None]
    assert_only(path)


@pytest.mark.parametrize("shift", [1, 40_000])
def test_a_range_that_was_not_asked_for_is_a_failure_and_the_next_call_begins_anew(host, path, shift):
    url = break_off(host, path, 40_000)
    host.serve(File(shift=shift))
    with pytest.raises(UserError, match=rf"from 40000 on, it answers 206 bytes {40_000 - shift}-102399/"):
        download([url], path)
    assert not path.exists()
    host.serve(File())
    download([url], path)
    assert host.ranges == ["bytes=40000-", None]
    assert_only(path)


def test_a_404_leads_to_the_next_mirror(start_host, path, caplog):
    first, second = start_host(), start_host()
    download([first.url(), second.serve(File())], path)
    assert (first.ranges, second.ranges) == ([None], [None])
    assert f"cannot download file.tar from {first.url()}: HTTP Error 404: Not Found" in caplog.text
    assert_only(path)


def test_the_mirrors_after_the_one_that_gave_the_file_are_not_asked(start_host, path):
    first, second = start_host(), start_host()
    download([first.serve(File()), second.serve(File(OTHER))], path)
    assert second.ranges == []
    assert_only(path)


def test_if_all_mirrors_fail_the_error_has_the_reason_of_each_in_one_line(start_host, path):
    first, closed = start_host(), start_host()
    closed.shutdown()
    closed.server_close()
    strange = "file:///etc/passwd"
    with pytest.raises(UserError) as caught:
        download([first.url(), closed.url(), strange, "nonsense"], path, instructions="put it there yourself")
    assert str(caught.value) == (
        f"could not download file.tar: {first.url()} (HTTP Error 404: Not Found), "
        f"{closed.url()} (Connection refused), {strange} ({strange} is neither http nor https), "
        "nonsense (unknown url type: 'nonsense'); put it there yourself"
    )
    assert list(path.parent.iterdir()) == []


def test_a_slow_trickle_is_no_failure(host, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    download([host.serve(File(CONTENT[:12], piece=1, pause=0.11))], path)
    assert host.ranges == [None]
    assert_only(path, CONTENT[:12])


def test_a_stall_is_a_break(host, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    download([host.serve(File(cuts=[7000], stalls=True))], path)
    assert host.ranges == [None, "bytes=7000-"]
    assert_only(path)


def test_a_host_that_never_answers_is_asked_once(start_host, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    first, second = start_host(), start_host()
    url = first.serve(lambda handler: first.over.wait(20))
    with pytest.raises(UserError, match=r"\(no data for 0\.5 s\)"):
        download([url], path)
    assert first.ranges == [None]
    download([url, second.serve(File())], path)
    assert_only(path)


def test_a_content_length_that_is_too_long_never_makes_a_file(host, path):
    url = host.serve(File(announces=len(CONTENT) + 1, ranges=False))
    with pytest.raises(UserError, match="it ended after 102400 of 102401 bytes"):
        download([url], path)
    assert not path.exists()


def send_unannounced(content):
    """Return a function that answers without a length, up to the end of the connection."""

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def send_chunks(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for position in range(0, len(CONTENT), 50_000):
        piece = CONTENT[position : position + 50_000]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def test_a_file_of_which_nothing_is_known_comes_with_a_warning(host, path, caplog):
    download([host.serve(send_unannounced(CONTENT))], path)
    assert "may be incomplete: its length is unknown" in caplog.text
    assert_only(path)


def test_chunks_are_put_together(host, path):
    download([host.serve(send_chunks)], path)
    assert_only(path)


def test_redirects_are_followed_with_the_range(start_host, path):
    first, second = start_host(), start_host()
    url = first.serve(second.serve(File(cuts=[30_000])))
    download([url], path)
    assert first.ranges == second.ranges == [None, "bytes=30000-"]
    assert_only(path)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://x/"]
)
def test_redirects_out_of_the_web_are_refused(host, path, target):
    with pytest.raises(UserError, match=rf"{target}.* is (not allowed|neither http nor https)"):
        download([host.serve(target)], path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("target", ["/file", "http://[::1/", "http://a b/", "//", "http://\xe9\xff/"])
def test_redirects_that_lead_nowhere_are_failures(host, path, target):
    with pytest.raises(UserError, match=r"could not download file\.tar"):
        download([host.serve(target)], path)
    assert list(path.parent.iterdir()) == []


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory):
    """The TLS context of a server with a self-signed certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *curve, *names, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_an_invalid_certificate_is_a_failure_that_names_the_option(start_host, path, self_signed):
    insecure, secure = start_host(self_signed), start_host()
    url = insecure.serve(File(OTHER))
    message = (
        r"the certificate of 127\.0\.0\.1 is not valid: self.signed certificate; --insecure-host 127\.0\.0\.1"
    )
    with pytest.raises(UserError, match=message):
        download([url], path, insecure_hosts=["localhost"])
    assert insecure.ranges == []
    download([url, secure.serve(File())], path)
    assert_only(path)


def test_an_invalid_certificate_of_an_insecure_host_is_noted(start_host, path, self_signed, caplog):
    host = start_host(self_signed)
    host.serve(File(cuts=[9000]))
    download([host.url(host="localhost")], path, insecure_hosts={"LocalHost"})
    assert host.ranges == [None, "bytes=9000-"]
    assert "the certificate of localhost is not checked (--insecure-host)" in caplog.text
    assert_only(path)


def test_a_redirect_to_an_invalid_certificate_of_another_host_is_refused(start_host, path, self_signed):
    first, second = start_host(self_signed), start_host(self_signed)
    second.serve(File())
    url = first.serve(second.url(host="localhost"))
    with pytest.raises(UserError, match="the certificate of localhost is not valid"):
        download([url], path, insecure_hosts=["127.0.0.1"])
    assert (first.ranges, second.ranges) == ([None], [])
    download([url], path, insecure_hosts=["127.0.0.1", "localhost"])
    assert_only(path)


def test_a_redirect_from_http_to_https_is_followed(start_host, path, self_signed):
    first, second = start_host(), start_host(self_signed)
    url = first.serve(second.serve(File()))
    with pytest.raises(UserError, match=r"--insecure-host 127\.0\.0\.1"):
        download([url], path)
    download([url], path, insecure_hosts=["127.0.0.1"])
    assert_only(path)


def test_a_full_disk_is_reported_and_the_next_call_goes_on(host, path):
    resource = pytest.importorskip("resource")
    content = CONTENT * 20
    url = host.serve(File(content))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*file\.tar\.part: .*ulimit -f"):
            download([url, host.url("never")], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert host.ranges == [None]
    assert part_of(path).read_bytes() == content[:1_000_000]
    download([url], path)
    assert host.ranges == [None, "bytes=1000000-"]
    assert_only(path, content)


def test_a_path_that_cannot_be_written_is_reported(host, path):
    url = host.serve(File())
    path.parent.write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        download([url], path)
    path.parent.unlink()
    part_of(path).mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write .*file\.tar\.part: Is a directory"):
        download([url], path)


def test_ctrl_c_leaves_the_first_bytes_to_go_on_with(host, path, monkeypatch):
    url = host.serve(File(cuts=[50_000]))

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.time, "sleep", interrupt)
        download([url], path)
    assert part_of(path).read_bytes() == CONTENT[:50_000]
    download([url], path)
    assert host.ranges == [None, "bytes=50000-"]
    assert_only(path)


def start_download(url, path):
    code = "import sys, utils.prepare.download as m; m.download([sys.argv[1]], m.Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, url, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_download_goes_on_where_it_was(host, path):
    url = host.serve(File(CONTENT * 5, piece=10_240, pause=0.015))
    part, asked = part_of(path), []
    for reached in (0, 1, 150_000, 400_000):
        process = start_download(url, path)
        wait_until(lambda: len(host.ranges) > len(asked))
        wait_until(lambda least=reached: not least or (part.exists() and part.stat().st_size >= least))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not path.exists()
        left = part.read_bytes() if part.exists() else b""
        assert (CONTENT * 5).startswith(left)
        asked.append(f"bytes={len(left)}-" if left else None)
    download([url], path)
    assert host.ranges == [None, *asked]
    assert len(left) >= 400_000
    assert_only(path, CONTENT * 5)
