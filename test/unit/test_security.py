"""Nothing that comes from outside is evaluated, unpickled or given to a shell: nothing in the package could do it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "activeo3_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")])

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
EVALUATORS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
LOADERS_OF_CODE = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load"}
SWITCHES = {"shell", "allow_pickle", "trust_remote_code"}
"""Arguments that must not be true."""


def dangers(source: str) -> list[str]:
    """The calls and imports of a Python source that could run what it reads, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        said = ""
        if isinstance(node, ast.Import):
            said = ", ".join(alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            said = node.module if (node.module or "").split(".")[0] in UNPICKLERS else ""
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = {keyword.arg for keyword in node.keywords if ast.unparse(keyword.value) in ("False", "None")}
            switched = {keyword.arg for keyword in node.keywords} & SWITCHES - safe
            said = name if name in EVALUATORS | SHELLS | LOADERS_OF_CODE else ", ".join(sorted(switched))
        if said:
            found.append(f"line {node.lineno}: {said}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_could_run_what_it_reads(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "yaml.load(text, Loader=Loader)",
        "torch.load(path, weights_only=True)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=wanted)",
        "np.load(path, allow_pickle=True)",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "os.system(command)",
    ],
)
def test_what_could_is_noticed(source):
    assert dangers(source)


def test_what_could_not_is_not():
    assert not dangers("model.eval(); re.compile('a'); np.load(path, allow_pickle=False); run(command, shell=False)")
