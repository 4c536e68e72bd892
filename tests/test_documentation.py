import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "datasets/README.md", "weights/**/README.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
]
SCRIPTS = {
    "evaluation.md": [["Measure_OxfordParis.py"]],
    "training.md": [["Training_ImageNet.py"]],
    "whitening.md": [["LearningPCA_landmark.py"]],
    "photo_search.md": [
        ["Search_Images.py", "index"],
        ["Search_Images.py", "query"],
        ["Search_Images.py", "duplicates"],
        ["Search_Images.py", "serve"],
        ["Search_Images.py", "export"],
    ],
}


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_no_markers_of_merge_conflicts(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r"<{7} |={7}$|>{7} ", line)] == []


def test_readme_is_short():
    assert len(without_code((ROOT / "README.md").read_text(encoding="utf-8")).split()) <= 1500


@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_options_in_the_table_of_a_page_are_those_of_its_script(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`--.*?) \|", text, flags=re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"--[A-Za-z][\w-]*", cell)}
    offered = set()
    for command in SCRIPTS[page]:
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        offered |= set(re.findall(r"--[A-Za-z][\w-]*", done.stdout))
    assert documented
    assert documented <= offered


def test_the_architecture_page_names_modules_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:utils|models)/[\w/.]+)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_architecture_page_names_each_folder_of_utils():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in (ROOT / "utils").glob("*/__init__.py")]
    assert folders
    assert [name for name in folders if f"- **`{name}/`**" not in text] == []
