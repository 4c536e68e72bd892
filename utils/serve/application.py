"""The page and its interface in HTTP, as a Starlette application.

    GET  /                                     the page; its script, style and icon are beside it
    GET  /images?start=0&name=text             rows and names of images of the index
    GET  /<image>                              name, width and height of an image
    GET  /<image>/thumbnail, /<image>/preview  the image as a JPEG
    GET  /<image>/attention?box=x1,y1,x2,y2    the attention over the image, or over the part inside the box
    POST /uploads                              send the contents of an image file; returns its <image>
    POST /search                               {"image": <image>, "box": null}: the matches

<image> is images/<row> for an image of the index, and uploads/<key> for a photo that was sent. No request
names a file.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from unicodedata import normalize

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from utils.errors import UserError
from utils.files.digests import file_version
from utils.images.loading import Box, InputImage
from utils.serve.jobs import Jobs, Priority, UnwantedError
from utils.serve.jpegs import PREVIEW_SIDE, THUMBNAIL_SIDE, Jpegs, shape
from utils.serve.searcher import PhotoSearcher, Query
from utils.serve.uploads import MOST_BYTES, NAME, Uploads, as_tensor
from utils.text import escape_misleading

LISTED = 60
"""Number of images of the index per answer."""

MOST_JSON_BYTES = 10_000

LARGEST_SIDE = 1_000_000
"""Largest absolute value of a side of a box, in pixels."""


class Asset(NamedTuple):
    """A file of the page."""

    data: bytes
    media_type: str


class Pages:
    """Handlers of the requests.

    Args:
        searcher: searches the index.
        jobs: threads for the computations.
    """

    def __init__(self, searcher: PhotoSearcher, jobs: Jobs) -> None:
        self._searcher = searcher
        self._jobs = jobs
        self._jpegs = Jpegs(searcher)
        self._uploads = Uploads()
        self._names = [escape_misleading(name) for name in searcher.index.names]

    async def list_images(self, request: Request) -> Response:
        """Return a part of the images of the index whose names contain a text, and the number of all."""
        start = _whole(request.query_params.get("start", "0"))
        text = _folded(request.query_params.get("name", ""))
        rows = [row for row, name in enumerate(self._names) if text in _folded(name)]
        images = [{"row": row, "name": self._names[row]} for row in rows[start : start + LISTED]]
        return JSONResponse({"total": len(rows), "images": images})

    async def describe_image(self, request: Request) -> Response:
        """Return the name and size of an image."""
        query = self._query(request)
        name = NAME if query.row is None else self._names[query.row]
        height, width = await self._jobs.run(Priority.IMAGE, shape, query)
        return JSONResponse({"image": query.name, "name": name, "width": width, "height": height})

    async def thumbnail(self, request: Request) -> Response:
        """Return a small JPEG of an image."""
        return await self._jpeg(request, Priority.IMAGE, self._jpegs.image, THUMBNAIL_SIDE)

    async def preview(self, request: Request) -> Response:
        """Return a large JPEG of an image."""
        return await self._jpeg(request, Priority.IMAGE, self._jpegs.image, PREVIEW_SIDE)

    async def attention(self, request: Request) -> Response:
        """Return the heat map of an image."""
        if not self._searcher.has_attention:
            raise HTTPException(404, "the network of the index has no attention")
        return await self._jpeg(request, Priority.HEAT_MAP, self._jpegs.heat_map)

    async def upload(self, request: Request) -> Response:
        """Keep a photo that was sent."""
        data = await _body(request, MOST_BYTES)
        key, pixels = await self._jobs.run(Priority.SEARCH, self._uploads.add, data)
        height, width, _ = pixels.shape
        return JSONResponse({"image": f"uploads/{key}", "width": width, "height": height})

    async def search(self, request: Request) -> Response:
        """Search for an image or a part of it."""
        try:
            sent = json.loads(await _body(request, MOST_JSON_BYTES))
            name, sides = sent["image"], sent["box"]
            kind, key = name.split("/")
            box = None if sides is None else _box(sides)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise HTTPException(400, "the request is not valid") from error
        query = self._image(kind, key, box)
        start = perf_counter()
        found, changed, outdated = await self._jobs.run(Priority.SEARCH, self._searcher.search, query)
        seconds = perf_counter() - start
        matches = [self._match(rank, *one) for rank, one in enumerate(found, start=1)]
        return JSONResponse(
            {"matches": matches, "changed": changed, "outdated": outdated, "seconds": seconds}
        )

    def _match(self, rank: int, row: int, similarity: float) -> dict[str, object]:
        return {"rank": rank, "row": row, "similarity": similarity, "name": self._names[row]}

    async def _jpeg(
        self, request: Request, priority: Priority, function: Callable[..., bytes], *arguments: int
    ) -> Response:
        query = self._query(request)
        unwanted = request.is_disconnected
        data = await self._jobs.run(priority, function, query, *arguments, unwanted=unwanted)
        return Response(data, media_type="image/jpeg")

    def _query(self, request: Request) -> Query:
        """Return the image that a request names, with its box.

        Raises:
            HTTPException: there is no such image, or the box is not valid.
        """
        sides = request.query_params.get("box")
        try:
            box = None if sides is None else _box(list(map(float, sides.split(","))))
        except ValueError as error:
            raise HTTPException(400, "the box is not valid") from error
        return self._image(request.path_params["kind"], request.path_params["key"], box)

    def _image(self, kind: str, key: str, box: Box | None) -> Query:
        """Return an image of the index or one that was sent.

        Raises:
            HTTPException: there is no such image.
        """
        name = f"{kind}/{key}"
        if kind == "images":
            row = _whole(key)
            if row < len(self._names):
                path = self._searcher.index.path(row)
                return Query(name, InputImage(path, box), row, file_version(path))
        elif kind == "uploads" and (pixels := self._uploads.get(key)) is not None:
            return Query(name, InputImage(Path(NAME), box, in_memory=as_tensor(pixels)))
        raise HTTPException(404, "there is no such image")


def application(searcher: PhotoSearcher, jobs: Jobs, assets: dict[str, Asset]) -> Starlette:
    """Return the application.

    Args:
        searcher: searches the index.
        jobs: threads for the computations.
        assets: the files of the page by their path.
    """
    pages = Pages(searcher, jobs)
    image = "/{kind}/{key}"
    return Starlette(
        routes=[
            *(Route(path, _send_asset(asset)) for path, asset in assets.items()),
            Route("/images", pages.list_images),
            Route("/uploads", pages.upload, methods=["POST"]),
            Route("/search", pages.search, methods=["POST"]),
            Route(image, pages.describe_image),
            Route(f"{image}/thumbnail", pages.thumbnail),
            Route(f"{image}/preview", pages.preview),
            Route(f"{image}/attention", pages.attention),
        ],
        exception_handlers={UserError: _user_error, HTTPException: _http_error, UnwantedError: _unwanted},
    )


def _send_asset(asset: Asset) -> Callable[[Request], Response]:
    return lambda request: Response(asset.data, media_type=asset.media_type)


async def _body(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: it has more than `most` bytes, or is not complete.
    """
    too_large = HTTPException(413, f"{NAME} has more than {most // 2**20} MB")
    if _whole(request.headers.get("content-length", "0")) > most:
        raise too_large
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > most:
                raise too_large
    except ClientDisconnect as error:
        raise UnwantedError from error
    return bytes(data)


def _box(sides: list) -> Box:
    """Return a box from a list of four numbers.

    Raises:
        ValueError: it is not valid.
    """
    left, top, right, bottom = (float(side) for side in sides)
    if not all(math.isfinite(side) and abs(side) <= LARGEST_SIDE for side in (left, top, right, bottom)):
        raise ValueError("a side of the box is not in the range")
    return left, top, right, bottom


def _folded(text: str) -> str:
    """Return a text in lower case, with composed letters: macOS decomposes them in names of files."""
    return normalize("NFC", text.casefold())


def _whole(text: str) -> int:
    """Return a whole number.

    Raises:
        HTTPException: the text is no number of at most 12 digits.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise HTTPException(404, "there is no such image")
    return int(text)


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": escape_misleading(str(error))}, status_code=400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _unwanted(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
