"""A real HTTP server on this machine that speaks the OpenAI protocol, and can be told to misbehave."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
import time
from collections import deque
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOX = '[{"bbox_2d": [10, 10, 90, 90], "label": "car"}]'


def entry(character, logprob):
    return {"token": character, "logprob": logprob, "bytes": list(character.encode())}


def completion(text=BOX, finish="stop", probability_log=-0.5, **changes):
    """A chat completion with one token a character."""
    values = {
        "id": "1",
        "object": "chat.completion",
        "model": "policy",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": {"content": [entry(c, probability_log) for c in text]},
            }
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": len(text), "total_tokens": 300 + len(text)},
    }
    return {**values, **changes}


class Server:
    """Answers each request with the next of `script`, and with `completion()` when that is used up.

    An entry is a dictionary (a JSON answer), a number (an HTTP status), bytes (a body as it stands), or a function of
    the handler.
    """

    def __init__(self, *script, port=0):
        self.script = deque(script)
        self.models = 200, {"data": [{"id": "policy"}]}
        """Status and body of the answer to the list of models."""
        self.requests = []
        self.connections = 0
        self.under_way = self.most_under_way = 0
        self.gone = threading.Event()
        """Set when a client left before it had its answer."""
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                with server._lock:
                    server.connections += 1
                super().setup()

            def do_GET(self):
                status, body = server.models
                self.counts = False
                self.send(status, json.dumps(body).encode())

            def do_POST(self):
                self.request_body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append((self.path, dict(self.headers), self.request_body))
                    step = server.script.popleft() if server.script else completion()
                    self.counts = True
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                try:
                    self.answer(step)
                except OSError:
                    server.gone.set()
                finally:
                    self.ends()

            def ends(self):
                """No longer under way: before its last byte, after which the client may send the next one."""
                with server._lock:
                    server.under_way -= self.counts
                    self.counts = False

            def answer(self, step):
                if callable(step):
                    step(self)
                elif isinstance(step, int):
                    self.send(step, json.dumps({"error": {"message": f"status {step}"}}).encode())
                else:
                    self.send(200, step if isinstance(step, bytes) else json.dumps(step).encode())

            def send(self, status, body, **headers):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.ends()
                self.wfile.write(body)

            def left(self, wait_s):
                """Whether the client closes its connection within some seconds."""
                self.connection.settimeout(wait_s)
                try:
                    return self.connection.recv(1) == b""
                except TimeoutError:
                    return False
                except OSError:
                    return True
                finally:
                    self.connection.settimeout(None)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def slow(seconds, then=None):
    """Answers late, unless the client leaves."""

    def step(handler):
        if handler.left(seconds):
            raise OSError("the client left")
        handler.answer(then or completion())

    return step


def dropped(handler):
    """Promises a body and resets the connection in its middle."""
    body = json.dumps(completion()).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The handler's files hold on to the socket, so closing it alone would leave the connection open.
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def dripping(handler):
    """Sends a byte at a time, for ever, as long as the client takes them."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(2000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.01)


def busy(seconds):
    """Asks to be left alone for some seconds."""
    return lambda handler: handler.send(429, b'{"error": {"message": "busy"}}', Retry_After=str(seconds))


def busy_until(seconds):
    """Asks to be left alone until a time of day, some seconds from now, rounded up to whole ones."""

    def step(handler):
        date = formatdate(math.ceil(time.time() + seconds), usegmt=True)
        handler.send(503, b'{"error": {"message": "loading"}}', Retry_After=date)

    return step


def refusing(*fields):
    """Answers with 400 as long as a request has one of the fields, which it names."""

    def step(handler):
        named = [field for field in fields if field in handler.request_body]
        if named:
            handler.send(400, json.dumps({"error": {"message": f"Unrecognized request argument: {named[0]}"}}).encode())
        else:
            handler.answer(completion())

    return step
