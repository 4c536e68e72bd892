"""The recipes of docs/vector_databases.md, run as printed and compared with exact search."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import draw_image

import Search_Images

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "vector_databases.md"
PACKAGES = {
    "FAISS": ["faiss"],
    "Milvus": ["pymilvus", "milvus_lite"],
    "pgvector": ["psycopg", "pgvector"],
}
POSTGRES = "PGVECTOR_HOST"
"""Environment variable: the address of a PostgreSQL with pgvector, and a superuser, as user@host:port."""


def recipes():
    """Return the code of each section of the page."""
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    code = {
        title: "".join(re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))
        for title, section in zip(sections[::2], sections[1::2], strict=True)
    }
    start = code.pop("Read the file")
    return {title: start + recipe for title, recipe in code.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an exported index of 30 images and the image holiday.jpg, and the ten best matches."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "images").mkdir()
    for seed in range(30):
        draw_image(folder / "images" / f"{seed}.png", seed)
    draw_image(folder / "holiday.jpg", 99)
    index = Search_Images.index(folder / "images", index=folder / "search_index", device="cpu", workers=0)
    words = ["export", str(folder / "photos.parquet"), "--index", str(folder / "search_index")]
    Search_Images.command_line(words)
    return folder, Search_Images.search(folder / "holiday.jpg", index=index, top=10, device="cpu")


@pytest.fixture
def environment():
    """The environment of a recipe; for pgvector with a new database."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    if POSTGRES not in os.environ:
        yield environment
        return
    import psycopg

    user, _, address = os.environ[POSTGRES].partition("@")
    host, _, port = address.partition(":")
    where = {"user": user, "host": host, "port": port or "5432"}
    with psycopg.connect(**where, dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE photos")
        yield environment | {f"PG{name.upper()}": value for name, value in where.items()}
        server.execute("DROP DATABASE photos")


def test_the_page_has_the_recipes_that_are_tested():
    assert recipes().keys() == PACKAGES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", PACKAGES)
def test_a_recipe_returns_the_ten_images_of_exact_search(folder, environment, recipe):
    missing = [name for name in PACKAGES[recipe] if find_spec(name) is None]
    if recipe == "pgvector" and POSTGRES not in os.environ:
        missing.append(f"{POSTGRES}=user@host:port")
    if missing and recipe != "FAISS":
        pytest.skip(f"needs {' and '.join(missing)}")
    path, matches = folder
    done = subprocess.run(
        [sys.executable, "-c", recipes()[recipe]], cwd=path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == [str(match.path) for match in matches]
    similarities = [match.similarity for match in matches]
    assert [float(row[0]) for row in rows] == pytest.approx(similarities, abs=1e-4)
