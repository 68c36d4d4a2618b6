"""Bringing weights here: from a directory, from a web server, broken off and resumed, and never anything damaged."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from types import SimpleNamespace

import pytest

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.downloads import HUBS, fetch_model
from activeo3_ros.assets.weights import local_model
from activeo3_ros.cli.main import main

MODEL = "somebody/policy"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path):
    """A checkpoint of two files of weights as somebody would put it on a server."""
    directory = tmp_path / "published"
    directory.mkdir()
    shards = {f"model-{n}.safetensors": bytes([n]) * 300_000 for n in (1, 2)}
    files = {
        **shards,
        "config.json": b'{"model_type": "qwen2_5_vl"}',
        "model.safetensors.index.json": json.dumps({"weight_map": {f"w{n}": n for n in shards}}).encode(),
        "modeling_evil.py": b"print('never fetched')",
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()]
    (directory / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    return directory


@pytest.fixture
def web(published):
    """A web server for it that knows ranges and can break off: `(url, requests, breaks)`."""
    requests, breaks = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            path = published / name
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            requests.append((name, start))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            content = content[start:]
            self.wfile.write(content[: len(content) // 2] if name in breaks and not start else content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests, breaks
    server.shutdown()
    server.server_close()


def test_a_model_comes_from_a_directory_and_is_then_found_by_its_id(published):
    target = fetch_model(MODEL, str(published))
    assert local_model(MODEL) == target
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    )


def test_a_model_without_a_name_is_told():
    with pytest.raises(AssetError, match="no model is named"):
        local_model("")


def test_what_broke_off_goes_on_where_it_was(web):
    url, requests, breaks = web
    breaks.append("model-2.safetensors")
    with pytest.raises(AssetError, match=r"model-2.safetensors broke off .*run activeo3 prefetch again"):
        fetch_model(MODEL, url)
    with pytest.raises(AssetError, match="run: activeo3 prefetch"):
        local_model(MODEL)
    requests.clear()
    fetch_model(MODEL, url)
    assert ("model-2.safetensors", 150_000) in requests and "model-1.safetensors" not in dict(requests)
    assert local_model(MODEL).joinpath("model-2.safetensors").stat().st_size == 300_000


def test_a_damaged_file_is_not_kept(published):
    (published / "model-1.safetensors").write_bytes(b"something else")
    with pytest.raises(AssetError, match=r"model-1.safetensors has the sha256 .* it was not kept"):
        fetch_model(MODEL, str(published))
    with pytest.raises(AssetError):
        local_model(MODEL)


@pytest.mark.parametrize("line", ["../../evil.json", "/etc/evil.json"])
def test_a_list_of_files_cannot_reach_outside(published, line):
    (published / "SHA256SUMS").write_text("0" * 64 + "  " + line + "\n", encoding="utf-8")
    with pytest.raises(AssetError, match="outside of the model"):
        fetch_model(MODEL, str(published))


def test_the_command_fetches_checks_and_explains(published, capsys):
    assert main(["prefetch", "active_o3", "--model", MODEL, "--source", str(published)]) == 0
    assert "somebody--policy" in capsys.readouterr().out
    assert main(["prefetch", "active_o3", "--model", str(published)]) == 0
    (published / "model-2.safetensors").unlink()
    assert main(["prefetch", "active_o3", "--model", str(published)]) == 2
    assert "model-2.safetensors is missing" in capsys.readouterr().err
    assert main(["prefetch", "active_o3", "--source", "http://127.0.0.1:9"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_without_a_client_of_a_hub_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("activeo3_ros.assets.downloads.has_package", lambda name: False)
    with pytest.raises(AssetError, match=r"pip install modelscope, or give --source"):
        fetch_model(MODEL)


def test_doctor_knows_whether_the_weights_are_here(published):
    from activeo3_ros.cli.doctor import Check, check_preset

    checks = {name: Check(name, True, "", "") for name in ("torch", "transformers", "onnxruntime", "rapidocr")}
    verdict = check_preset("active_o3", checks)
    assert not verdict.ok and any("run: activeo3 prefetch active_o3" in reason for reason in verdict.because)
    fetch_model("zzzmmz/ACTIVE-o3", str(published))
    assert check_preset("active_o3", checks).ok
    remote = check_preset("remote", {"httpx": Check("httpx", True, "", "")})
    assert not any("prefetch" in reason for reason in remote.because), "its model is elsewhere"


@pytest.fixture
def hub(published):
    """A server that speaks as much of Hugging Face's protocol as its client needs: `(url, requests, damaged)`.

    Weights have their SHA-256 as ETag, as files of weights have there; the first answer for each of them breaks off.
    """
    requests, damaged, broken = [], [], set()
    commit = "0" * 40
    names = sorted(path.name for path in published.iterdir())

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path.startswith("/api/models/"):
                listing = [{"type": "file", "path": each, "rfilename": each, "oid": "1" * 40,
                            "size": (published / each).stat().st_size} for each in names]  # fmt: skip
                about = {"id": MODEL, "modelId": MODEL, "sha": commit, "siblings": listing, "private": False}
                self.give(json.dumps(listing if "/tree/" in path else about).encode(), {}, body)
            elif name in names:
                content = (published / name).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                if name in damaged:
                    content = bytes([content[0] ^ 1]) + content[1:]
                requests.append((self.command, name, self.headers.get("Range")))
                self.give(content, {"ETag": f'"{digest}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, body)
            else:
                self.send_error(404)

        def give(self, content, headers, body):
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            name = self.path.rpartition("/")[2]
            self.send_response(206 if start else 200)
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            for key, value in {**headers, "Content-Length": str(len(content) - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and name.endswith(".safetensors") and name not in broken:
                broken.add(name)
                self.wfile.write(content[start : start + len(content) // 2])
                self.close_connection = True
            elif body:
                self.wfile.write(content[start:])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests, damaged
    server.shutdown()
    server.server_close()


def prefetch(cache, client, **environment):
    """The command in a process of its own, with one hub's client: it reads its address when it is imported."""
    pytest.importorskip(client, reason=f"{client} is not installed")
    others = [f"sys.modules[{other!r}] = None" for other in HUBS if other != client]
    script = f"import sys; {'; '.join(others)}; from activeo3_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "prefetch", "active_o3", "--model", MODEL]
    settings = os.environ | {"ACTIVEO3_CACHE": str(cache)} | environment
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)


def prefetch_from_hugging_face(url, cache):
    return prefetch(
        cache, "huggingface_hub", HF_ENDPOINT=url, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="0", HF_HOME=str(cache / "hf"), HF_HUB_DISABLE_PROGRESS_BARS="1",
    )  # fmt: skip


def test_the_client_of_hugging_face_fetches_weights_and_goes_on_where_it_broke_off(hub, cache, published):
    url, requests, _ = hub
    (published / "model-2.safetensors").write_bytes(b"2" * 24_000_000)  # the client keeps pieces of 10 MB
    done = prefetch_from_hugging_face(url, cache)
    for _ in range(3):
        if done.returncode == 0:
            break
        done = prefetch_from_hugging_face(url, cache)
    assert done.returncode == 0, done.stderr
    target = local_model(MODEL)
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        assert (target / name).read_bytes() == (published / name).read_bytes()
    assert not (target / "modeling_evil.py").exists()
    assert any(how == "GET" and part not in (None, "bytes=0-") for how, _, part in requests), "it was resumed"


def test_weights_of_a_hub_that_are_not_what_it_promised_are_not_kept(hub, cache):
    url, _, damaged = hub
    damaged.append("model-2.safetensors")
    results = [prefetch_from_hugging_face(url, cache) for _ in range(2)]
    assert all(done.returncode != 0 for done in results)
    assert "model-2.safetensors has the sha256" in results[-1].stdout + results[-1].stderr
    with pytest.raises(AssetError):
        local_model(MODEL)


@pytest.fixture
def modelscope(published):
    """A server that speaks as much of ModelScope's protocol as its client needs.

    The listing has the SHA-256 of each file; the first answer for each file of weights breaks off. `damaged`: files
    with another content than listed. `missing`: it has no such model.
    """
    hub, broken = SimpleNamespace(requests=[], damaged=[], missing=False), set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            address = urllib.parse.urlsplit(self.path)
            name = urllib.parse.parse_qs(address.query).get("FilePath", [""])[0]
            if address.path == f"/api/v1/models/{MODEL}/repo/files" and not hub.missing:
                files = [{"Path": path.name, "Name": path.name, "Type": "blob", "Size": path.stat().st_size,
                          "Sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                         for path in sorted(published.iterdir())]  # fmt: skip
                self.give(json.dumps({"Code": 200, "Success": True, "Data": {"Files": files}}).encode())
            elif address.path == f"/api/v1/models/{MODEL}/repo" and (published / name).is_file():
                content = (published / name).read_bytes()
                if name in hub.damaged:
                    content = bytes([content[0] ^ 1]) + content[1:]
                hub.requests.append((name, self.headers.get("Range")))
                self.give(content, breaks_off=name.endswith(".safetensors") and name not in broken)
                broken.add(name)
            else:
                self.give(b'{"Code": 10010205001, "Message": "record not found", "Success": false}', 404)

        def give(self, content, status=200, breaks_off=False):
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0]) if status == 200 else 0
            self.send_response(206 if start else status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + len(content) // 2] if breaks_off else content[start:])
            self.close_connection = breaks_off

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield hub
    server.shutdown()
    server.server_close()


def prefetch_from_modelscope(hub, cache, **environment):
    return prefetch(
        cache, "modelscope", MODELSCOPE_ENDPOINT=hub.url, MODELSCOPE_DOMAIN=hub.url,
        MODELSCOPE_HOME=str(cache / "home"), MODELSCOPE_CACHE=str(cache / "modelscope"), **environment,
    )  # fmt: skip


def test_the_client_of_modelscope_fetches_weights_and_goes_on_where_it_broke_off(modelscope, cache, published):
    done = prefetch_from_modelscope(modelscope, cache)
    assert done.returncode == 0, done.stderr
    target = local_model(MODEL)
    assert done.stdout.strip().endswith(str(target))
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        assert (target / name).read_bytes() == (published / name).read_bytes()
    assert "modeling_evil.py" not in dict(modelscope.requests) and not (target / "modeling_evil.py").exists()
    assert any(part not in (None, "bytes=0-") for _, part in modelscope.requests), "it was resumed"


def test_a_second_run_goes_on_where_the_first_was_given_up(modelscope, cache, published):
    first = prefetch_from_modelscope(modelscope, cache, MODELSCOPE_DOWNLOAD_MAX_RETRIES="0")
    assert first.returncode == 2 and "ModelScope did not give somebody/policy" in first.stderr
    with pytest.raises(AssetError):
        local_model(MODEL)
    modelscope.requests.clear()
    assert prefetch_from_modelscope(modelscope, cache).returncode == 0
    asked = dict(modelscope.requests)
    assert asked["model-1.safetensors"] == "bytes=150000-" and "config.json" not in asked
    assert (local_model(MODEL) / "model-1.safetensors").stat().st_size == 300_000


def test_weights_of_modelscope_that_are_not_what_it_promised_are_not_kept(modelscope, cache):
    modelscope.damaged.append("model-2.safetensors")
    done = prefetch_from_modelscope(modelscope, cache)
    assert done.returncode == 2 and "ModelScope did not give somebody/policy" in done.stderr
    with pytest.raises(AssetError):
        local_model(MODEL)


def test_a_model_that_modelscope_does_not_have_is_named(modelscope, cache):
    modelscope.missing = True
    done = prefetch_from_modelscope(modelscope, cache)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "ModelScope did not give somebody/policy" in line and "404" in line


class Refused(Exception):
    """As the clients raise it: with the answer that they got."""

    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(("status", "asked"), [(404, ["modelscope", "huggingface_hub"]), (503, ["modelscope"])])
def test_what_one_hub_does_not_have_is_asked_of_the_other(monkeypatch, published, status, asked):
    """But what it fails to give is not: a model of that name may be somebody else's there."""
    hubs = []

    def client(package):
        def download(local_dir, **_):
            hubs.append(package)
            if package == "modelscope":
                raise Refused(status)
            shutil.copytree(published, local_dir, dirs_exist_ok=True)

        return SimpleNamespace(snapshot_download=download)

    monkeypatch.setattr("activeo3_ros.assets.downloads.has_package", lambda name: True)
    monkeypatch.setattr("activeo3_ros.assets.downloads.require_package", lambda name, *_: client(name))
    if status == 404:
        assert fetch_model(MODEL) == local_model(MODEL)
    else:
        with pytest.raises(AssetError, match=r"ModelScope did not give somebody/policy \(HTTP 503\)"):
            fetch_model(MODEL)
    assert hubs == asked
