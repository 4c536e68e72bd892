"""Server of the page: from the address to Ctrl-C."""

import logging
import socket
from importlib.resources import files

import uvicorn
from jinja2 import Environment, StrictUndefined

from utils.errors import UserError
from utils.figures.heat_map import CAPTION, scale_colors
from utils.serve.application import LISTED, Asset, application
from utils.serve.guard import Guard, is_loopback
from utils.serve.jobs import Jobs
from utils.serve.searcher import PhotoSearcher
from utils.serve.uploads import MOST_BYTES
from utils.text import escape_misleading

log = logging.getLogger(__name__)

MOST_REQUESTS = 200
"""Maximum number of open connections."""

LAST_SECONDS = 2
"""Seconds that open requests have at the end."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Args:
        host: name or address of an interface of this computer.
        port: the port; 0 for any free port.

    Raises:
        UserError: the address does not belong to this computer, or its port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a server just stopped
            server.bind(address)
            server.listen()
        except OSError:
            server.close()
            raise
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror}): name another --port or --host"
        ) from error
    return server


def serve(searcher: PhotoSearcher, server: socket.socket, note: str) -> None:
    """Serve the page until Ctrl-C or SIGTERM, which is raised again after the end.

    Args:
        searcher: searches the index.
        server: socket that listens.
        note: line about the index.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    host, port = server.getsockname()[:2]
    if not is_loopback(host):
        log.warning("note: everyone in the network who reaches %s can see all images of the index", host)
    jobs = Jobs()
    config = uvicorn.Config(
        guarded_application(searcher, jobs, note, host),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_REQUESTS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
    log.info("the page is ready; Ctrl-C ends it")
    try:
        uvicorn.Server(config).run(sockets=[server])
    finally:
        jobs.close()


def guarded_application(searcher: PhotoSearcher, jobs: Jobs, note: str, host: str) -> Guard:
    """Return the application that the server runs.

    Args:
        searcher: searches the index.
        jobs: threads for the computations.
        note: line about the index.
        host: the address that the server listens at.
    """
    return Guard(application(searcher, jobs, page_assets(searcher, note)), host)


def page_assets(searcher: PhotoSearcher, note: str) -> dict[str, Asset]:
    """Return the page and its files by their path.

    Args:
        searcher: the search that the page is for.
        note: line about the index.
    """
    folder = files("utils.serve").joinpath("page")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(folder.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        note=escape_misleading(note),
        has_attention=searcher.has_attention,
        caption=CAPTION,
        colors=scale_colors(),
        most_bytes=MOST_BYTES,
        listed=LISTED,
    )
    return {
        "/": Asset(page.encode(), "text/html"),
        "/page.js": Asset(folder.joinpath("page.js").read_bytes(), "text/javascript"),
        "/style.css": Asset(folder.joinpath("style.css").read_bytes(), "text/css"),
        "/icon.svg": Asset(folder.joinpath("icon.svg").read_bytes(), "image/svg+xml"),
    }
