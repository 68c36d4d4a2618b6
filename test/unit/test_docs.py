"""The pages: links lead somewhere, generated pages are in step with their source, their commands exist."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from loading import load_script

from activeo3_ros.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOT_OURS = {".venv", "build", "install", "log", "out", "dist", "api"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not NOT_OURS & set(path.relative_to(ROOT).parts) and not any(part.startswith(".") for part in path.parts[:-1])
)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
MENTION = re.compile(r"\bdocs/[\w./-]+\.(?:md|csv|json|png|jpg|svg)\b")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def identify(path: Path) -> str:
    """The path from the root of the repository, as a test's name."""
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """`docs/generate.py` as a module."""
    return load_script(DOCS / "generate.py")


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{link}: no such heading"


def test_every_page_of_the_documentation_is_in_its_table_of_contents():
    listed = set((DOCS / "index.rst").read_text(encoding="utf-8").split())
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if page.is_relative_to(DOCS)}
    assert pages <= listed


def test_pages_and_results_that_are_named_exist():
    folders = ("activeo3_ros", "benchmarks", "config", "docs", "examples", "launch", "research", "scripts", "test")
    missing = {
        (str(path.relative_to(ROOT)), mention)
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".xml", ".md"} and path != Path(__file__)
        for mention in MENTION.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / mention).exists()
    }
    assert not missing


# ---- generated pages -------------------------------------------------------------------------------------------------


def test_generated_pages_are_in_step_with_their_source(generate):
    for name, make in generate.PAGES.items():
        if name not in generate.NEED_ROS:
            written = (DOCS / "reference" / name).read_text(encoding="utf-8")
            assert written == make(), f"run: python docs/generate.py ({name})"


def test_every_field_of_a_message_has_a_meaning(generate):
    for line in generate.messages().splitlines():
        assert not re.fullmatch(r"\| `\w+` \| .* \|  \|", line), line


# ---- commands in pages -----------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """Each command line `activeo3 …` in a block of shell commands, with its page."""
    for page in PAGES:
        for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == "sh":
                for line in block.replace("\\\n", " ").splitlines():
                    if line.startswith("activeo3 "):
                        yield identify(page), line


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_of_the_pages_are_as_the_parser_has_them(page, line):
    words = shlex.split(line.partition(" > ")[0], comments=True)
    cli._parse(words[1:])


# ---- the pages beside the code ---------------------------------------------------------------------------------------


def test_the_readme_fits_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_the_ten_changes_name_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Ten changes and their files\n")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == 10
    for row in rows:
        files = LINK.findall(row)
        assert files, row
        assert all((ROOT / file).is_file() for file in files), row


def test_the_version_is_in_the_changelog_and_the_citation():
    version = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert re.search(rf"^{version} \(\d{{4}}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
