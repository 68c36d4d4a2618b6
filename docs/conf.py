"""Sphinx: `make docs` builds into `out/docs`; rosdoc2 runs the same file through its own.

rosdoc2 executes this file from another place, so that nothing here may depend on `__file__`: what needs the source tree
takes it from Sphinx, in `setup`.
"""

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

from sphinx.application import Sphinx
from sphinx.config import Config

project = "activeo3_ros"
author = "The activeo3_ros maintainers"
copyright = "2026, the activeo3_ros maintainers; Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: list[str] = []
html_theme = "sphinx_rtd_theme"
html_theme_options = {"navigation_depth": 3}
default_role = "code"  # docstrings write `name` as Markdown does
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
# Neither is needed to read a docstring, and a machine that builds pages has neither.
autodoc_mock_imports = [
    name
    for name in ("torch", "transformers", "trl", "datasets", "peft", "vllm", "cv2", "onnxruntime", "rapidocr", "mcap")
    if importlib.util.find_spec(name) is None
]

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


def setup(app: Sphinx) -> None:
    """Connect what needs the source tree."""
    app.connect("config-inited", take_version)
    app.connect("builder-inited", write_api_pages)
    app.connect("autodoc-process-docstring", mark_code_blocks)


def take_version(app: Sphinx, config: Config) -> None:
    """Take the version from package.xml, and make the package importable where it is not installed."""
    root = Path(app.srcdir).parent
    config.release = config.version = ElementTree.parse(root / "package.xml").findtext("version") or ""
    if importlib.util.find_spec("activeo3_ros") is None:
        sys.path.insert(0, str(root))


def write_api_pages(app: Sphinx) -> None:
    """Write one page a folder of the package, with the docstrings of all its modules; git ignores them."""
    package = Path(app.srcdir).parent / "activeo3_ros"
    pages = Path(app.srcdir) / "reference" / "api"
    pages.mkdir(exist_ok=True)
    for page in pages.glob("*.rst"):
        if page.stem not in API:
            page.unlink()
    for folder, title in API.items():
        modules = sorted(
            "activeo3_ros." + ".".join(path.relative_to(package).with_suffix("").parts)
            for path in (package / folder).rglob("*.py")
            if not path.name.startswith("_")
        )
        if folder == "core":
            modules.append("activeo3_ros.presets")
        lines = [title, "=" * len(title), ""]
        for module in modules:
            lines += [module, "-" * len(module), "", f".. automodule:: {module}", ""]
        text = "\n".join(lines)
        page = pages / f"{folder}.rst"
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def mark_code_blocks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make blocks that are indented by four spaces after "…:" and an empty line literal, as Markdown has them."""
    for index, (line, blank, block) in enumerate(zip(lines, lines[1:], lines[2:], strict=False)):
        deeper = len(block) - len(block.lstrip()) - (len(line) - len(line.lstrip()))
        if line.endswith(":") and not line.endswith("::") and not blank and block.strip() and deeper >= 4:
            lines[index] = line + ":"
