"""Sphinx: `make docs` builds into `out/docs`; rosdoc2 builds a copy of this folder, whose conf.py executes this one."""

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from sphinx.application import Sphinx
from sphinx.config import Config


def source_tree() -> Path:
    """Find the root of the repository from this file, or from the path by which rosdoc2's conf.py opens it."""
    conf = Path(__file__)
    executed = re.search(r'exec\(open\("(.+?)"', conf.read_text(encoding="utf-8"))
    return Path(executed[1] if executed and "rosdoc2" in executed.string else conf).resolve().parent.parent


ROOT = source_tree()
if importlib.util.find_spec("activeo3_ros") is None:
    sys.path.insert(0, str(ROOT))

project = "activeo3_ros"
author = "The activeo3_ros maintainers"
copyright = "2026, the activeo3_ros maintainers; Apache-2.0"
release = version = ElementTree.parse(ROOT / "package.xml").findtext("version") or ""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: list[str] = []
html_theme = "sphinx_rtd_theme"
html_theme_options = {"navigation_depth": 3}
default_role = "code"  # docstrings write `name` as Markdown does
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a dataclass have an entry of their own already
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
suppress_warnings = ["ref.python"]  # the type of an argument that several modules have, as `Found`

rosdoc2_settings = {"enable_breathe": False, "enable_exhale": False}

API = {
    "core": "The loop and what it is made of",
    "policies": "Sensing policies",
    "detectors": "Detectors and task models",
    "segmenters": "Segmenters",
    "vlm": "Vision-language models",
    "codecs": "Codecs of a result",
    "bags": "Bags",
    "evaluation": "Evaluation",
    "training": "Training",
}
"""Folders of the package whose modules have a page below `reference/api/`, and its title. None of them needs ROS."""


NOT_NEEDED = ("torch", "transformers", "trl", "datasets", "peft", "vllm", "cv2", "onnxruntime", "rapidocr", "mcap")
"""Packages that a docstring is readable without, where they are missing."""
LABELLED = re.compile(r"[A-Z][a-z]+(?: [a-z]+)?: ")
"""The beginning of a line such as "Tried with: …"."""


def setup(app: Sphinx) -> None:
    """Connect what has to be done while Sphinx runs."""
    app.connect("config-inited", mock_missing_packages)
    app.connect("builder-inited", write_api_pages)
    app.connect("autodoc-process-docstring", translate_docstring)


def mock_missing_packages(app: Sphinx, config: Config) -> None:
    """Mock what is not installed, beside what rosdoc2 mocks."""
    missing = [name for name in NOT_NEEDED if importlib.util.find_spec(name) is None]
    config.autodoc_mock_imports = [*config.autodoc_mock_imports, *missing]


def write_api_pages(app: Sphinx) -> None:
    """Write the changelog's page and one page a folder of the package, with all its docstrings; git ignores them."""
    pages = Path(app.srcdir) / "reference" / "api"
    pages.mkdir(exist_ok=True)
    write(Path(app.srcdir) / "changelog.rst", (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8"))
    for folder, title in API.items():
        modules = sorted(
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in (ROOT / "activeo3_ros" / folder).rglob("*.py")
            if not path.name.startswith("_")
        )
        if folder == "core":
            modules.append("activeo3_ros.presets")
        lines = [title, "=" * len(title), ""]
        for module in modules:
            lines += [module, "-" * len(module), "", f".. automodule:: {module}", ""]
        write(pages / f"{folder}.rst", "\n".join(lines))


def write(page: Path, text: str) -> None:
    """Write a page if it changed, so that Sphinx builds only what did."""
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def translate_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the Markdown habits of docstrings into reStructuredText.

    A block that is indented by four spaces after "…:" and an empty line is code; "`name`s" is code and a letter; lines
    "Label: text" below each other, with hanging indents, are a list of fields.
    """
    for index, line in enumerate(lines):
        if begins_code(lines, index):
            line += ":"
        elif begins_field(lines, index):
            line = f":{line}"
        lines[index] = re.sub(r"(?<!`)(`[^`]+`)(?=\w)", r"\1\\ ", line)


def begins_code(lines: list[str], index: int) -> bool:
    """Whether the line announces the indented block below the next, empty line."""
    line, below = lines[index], lines[index + 1 : index + 3]
    indent = len(line) - len(line.lstrip())
    announces = line.endswith(":") and not line.endswith("::")
    return announces and len(below) == 2 and not below[0] and below[1].startswith(" " * (indent + 4))


def begins_field(lines: list[str], index: int) -> bool:
    """Whether the line is one of several "Label: text"; those above it are fields already."""
    above = lines[index - 1][:1] if index else ""
    below = lines[index + 1] if index + 1 < len(lines) else ""
    first_of_several = not above and bool(LABELLED.match(below) or below.startswith("    "))
    return bool(LABELLED.match(lines[index])) and (first_of_several or above in (":", " "))
