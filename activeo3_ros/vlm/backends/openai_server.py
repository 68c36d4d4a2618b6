"""Asks a server that speaks the OpenAI protocol, such as `vllm serve` or SGLang, on this machine or another.

Every request has a deadline that covers waiting, retries and reading the answer. A server that is busy (429) or broken
(5xx, dropped connections, answers that are none) is asked again until that deadline, more and more slowly; one that
refuses (other 4xx) is not. When a request of a batch has failed, and when the engine is closed, the connections of the
others are closed too, upon which servers stop generating.
"""

from __future__ import annotations

import base64
import codecs
import http.client
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import cv2

from ...core.errors import EngineError, InvalidInput
from ...settings import validated, within
from ..answer_grammar import escaped
from ..engine import Reply, Request, Token, aligned
from ..families import family_named

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A longer body is no answer of a few hundred tokens."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between attempts: doubled each time, with jitter, so that a fleet does not come back all at once."""
API_KEY_VARIABLE = "ACTIVEO3_API_KEY"
"""The environment variable with the server's key, if it wants one; keys do not belong into configuration files."""

STRUCTURED: dict[str, Callable[[str], dict[str, Any]]] = {
    "": lambda regex: {},
    "vllm": lambda regex: {"structured_outputs": {"regex": regex}},
    "vllm_guided": lambda regex: {"guided_regex": regex},
    "sglang": lambda regex: {"regex": regex},
}
"""Where servers take the regular expression that they hold a model to; the OpenAI protocol itself has no such field."""


class _TryAgain(Exception):
    """The server may answer later. pause_s: how long it asked to be left alone."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class RemoteEngine:
    """A model behind HTTP. Requests of all threads share one limit of concurrent ones; more wait their turn."""

    device = "remote"

    @validated
    def __init__(
        self,
        url: str,
        model: str,
        family: str = "qwen2_5_vl",
        timeout_s: Annotated[float, within(0.1, 600)] = 30.0,
        connect_timeout_s: Annotated[float, within(0.05, 600)] = 3.0,
        max_attempts: Annotated[int, within(1, 20)] = 4,
        max_concurrent: Annotated[int, within(1, 1024)] = 32,
        jpeg_quality: Annotated[int, within(0, 100)] = 95,
        forced_prefix: bool = True,
        structured: Literal["", "vllm", "vllm_guided", "sglang"] = "",
    ) -> None:
        """url: of the API, such as "http://localhost:8000/v1". model: its name on that server.

        family: how that model sees images and writes coordinates, "qwen2_5_vl" or "qwen3_vl"; the server does not tell.
        timeout_s: seconds for one request with all its attempts, 0.1 to 600. connect_timeout_s: for each connection.
        max_attempts: 1 to 20. max_concurrent: requests under way at a time, 1 to 1024.
        jpeg_quality: 1 to 100 for pictures as JPEG; 0 sends PNG, which loses nothing and is several times larger.
        forced_prefix: let the server go on with a beginning of the answer (`continue_final_message` of vLLM and
        SGLang); a server without it must not be sent one, and then answers in its own way.
        structured: let the server hold the model to the form of answer that the prompt names: "vllm" (0.11 and later),
        "vllm_guided" (before), "sglang"; "" leaves it to the model, whose mistakes the parser mends.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"url must begin with http:// or https:// and name a host, got {url!r}")
        self.family = family_named(family)
        self.url, self.model_name = url.rstrip("/"), model
        self._parts = parts
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._max_attempts, self._jpeg_quality, self._forced_prefix = max_attempts, jpeg_quality, forced_prefix
        self.structured = structured
        self._pool = ThreadPoolExecutor(max_concurrent, thread_name_prefix="remote-engine")
        self._closed = threading.Event()
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()

    def describe(self) -> str:
        return f"{self.model_name} at {self.url}"

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Raises EngineError when a request has no answer in its time; the others of the batch are then given up."""
        if self._closed.is_set():
            raise EngineError(f"{self.describe()}: this engine was closed")
        deadline = time.monotonic() + self._timeout_s
        calls = [_Call(self, request, deadline) for request in requests]
        with self._lock:
            self._calls.update(calls)
        try:
            futures = self._submit(calls)
            done, _ = wait(futures, timeout=max(0.0, deadline - time.monotonic()) + 0.5, return_when=FIRST_EXCEPTION)
            failed = next((future for future in futures if future in done and future.exception()), None)
            if failed is not None:
                raise failed.exception() or EngineError("the request failed")
            if len(done) < len(futures):
                raise EngineError(
                    f"{self.describe()}: {len(futures) - len(done)} of {len(futures)} requests had no turn or no "
                    f"answer within {self._timeout_s:g} s; raise timeout_s or max_concurrent, or ask for fewer views"
                )
            return [future.result() for future in futures]
        finally:
            for call in calls:
                call.cancel()
            with self._lock:
                self._calls.difference_update(calls)

    def _submit(self, calls: Sequence[_Call]) -> list[Future[Reply]]:
        try:
            return [self._pool.submit(call.run) for call in calls]
        except RuntimeError as error:  # another thread has just shut the pool down
            raise EngineError(f"{self.describe()}: this engine was closed") from error

    def body(self, request: Request) -> bytes:
        """The JSON body of a request."""
        prompt = request.prompt
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt.before}] if prompt.before else []
        content.append({"type": "image_url", "image_url": {"url": self._data_url(request)}})
        content.append({"type": "text", "text": prompt.after})
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        values: dict[str, Any] = {
            "model": self.model_name,
            "messages": messages,
            "max_tokens": request.max_new_tokens,
            "temperature": 0,
            "logprobs": True,
        }
        if prompt.stop:
            values |= {"stop": list(prompt.stop), "include_stop_str_in_output": True}
        if prompt.prefix and self._forced_prefix:
            messages.append({"role": "assistant", "content": prompt.prefix})
            values |= {"add_generation_prompt": False, "continue_final_message": True}
        if prompt.regex:
            begun = "" if self._forced_prefix else escaped(prompt.prefix)
            values |= STRUCTURED[self.structured](begun + prompt.regex)
        return json.dumps(values).encode()

    def _data_url(self, request: Request) -> str:
        if self._jpeg_quality:
            kind, options = "jpeg", [int(cv2.IMWRITE_JPEG_QUALITY), self._jpeg_quality]
        else:
            kind, options = "png", [int(cv2.IMWRITE_PNG_COMPRESSION), 1]
        ok, encoded = cv2.imencode(f".{kind}", request.image, options)
        if not ok:
            raise InvalidInput(f"a view of shape {request.image.shape} cannot be encoded as {kind}")
        return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"

    def reply(self, request: Request, values: Any) -> Reply:
        """A reply from the server's JSON. Raises _TryAgain if it is not what the protocol says."""
        try:
            choice = values["choices"][0]
            written = choice["message"]["content"]
            finish = choice.get("finish_reason")
            if written is None:
                written = ""
            if not isinstance(written, str):
                raise TypeError(f"content is {type(written).__name__}")
            usage = values.get("usage") or {}
            count, prompt_tokens = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
            listed = (choice.get("logprobs") or {}).get("content") or []
            tokens = _tokens(listed, written, count)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _TryAgain(f"an answer that the protocol does not have ({type(error).__name__}: {error})") from error
        stop = choice.get("stop_reason")
        if isinstance(stop, str) and stop in request.prompt.stop and not written.endswith(stop):
            written, tokens = written + stop, (*tokens, Token(stop))
        prefix = request.prompt.prefix if self._forced_prefix else ""
        size = request.image.shape[1], request.image.shape[0]
        return Reply(prefix + written, tokens, size, prompt_tokens, finished=finish != "length")


class _Call:
    """One request on its way."""

    def __init__(self, engine: RemoteEngine, request: Request, deadline: float) -> None:
        self._engine, self._request, self._deadline = engine, request, deadline
        self._connection: http.client.HTTPConnection | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Close the connection and attempt no more; nothing happens if the answer is there."""
        self._cancelled.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(2)  # wakes up a thread that reads; closing alone would not
            except OSError:
                pass

    def run(self) -> Reply:
        engine = self._engine
        reason = "it was not asked in time"
        pause = FIRST_PAUSE_S
        body = b""
        attempt = 0
        while attempt < engine._max_attempts and self._left() > 0 and not self._cancelled.is_set():
            attempt += 1
            try:
                body = body or engine.body(self._request)
                return engine.reply(self._request, self._post(body))
            except _TryAgain as error:
                reason = str(error)
                waiting = max(error.pause_s, pause * random.uniform(0.5, 1.0))
                if waiting >= self._left():
                    break
                if attempt < engine._max_attempts:
                    self._cancelled.wait(waiting)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        if self._cancelled.is_set():
            raise EngineError(f"{engine.describe()}: the request was given up")
        tried = f"{attempt} attempt{'s' if attempt != 1 else ''}"
        raise EngineError(
            f"{engine.describe()}: no answer after {tried} within {engine._timeout_s:g} s: {reason}; "
            "check that the server runs and is not overloaded"
        )

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _post(self, body: bytes) -> Any:
        parts, engine = self._engine._parts, self._engine
        connect = min(engine._connect_timeout_s, max(0.05, self._left()))
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = self._connection = kind(str(parts.hostname), parts.port, timeout=connect)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(API_KEY_VARIABLE)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.connect()
            if self._cancelled.is_set():
                raise _TryAgain("it was given up")
            connection.sock.settimeout(max(0.05, self._left()))
            connection.request("POST", f"{parts.path.rstrip('/')}/chat/completions", body, headers)
            response = connection.getresponse()
            return self._read(response)
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> Any:
        """The JSON of a good answer. Raises _TryAgain, or EngineError where asking again is of no use."""
        chunks: list[bytes] = []
        size = 0
        while chunk := response.read1(65536):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise EngineError(f"{self._engine.describe()}: its answer is longer than {MAX_ANSWER_BYTES} bytes")
            if self._left() <= 0:
                raise _TryAgain("its answer came too slowly")
        body = b"".join(chunks)
        length = response.getheader("Content-Length")
        if length is not None and length.isdigit() and size < int(length):
            raise _TryAgain(f"the connection broke after {size} of {length} bytes")
        status = response.status
        if status == 429 or status >= 500:
            raise _TryAgain(f"HTTP {status} {_message(body)}", _seconds(response.getheader("Retry-After")))
        if status != 200:
            structured = self._engine.structured
            doubt = f"; is structured: {structured} right for this server, or should it be ''?" if structured else ""
            raise EngineError(
                f"{self._engine.describe()}: HTTP {status} {_message(body)}; check the model's name, "
                f"${API_KEY_VARIABLE} and what the server allows{doubt}"
            )
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _TryAgain(f"an answer that is not JSON: {_message(body)}") from error


def _tokens(listed: Sequence[Any], written: str, count: int) -> tuple[Token, ...]:
    """The tokens with their probabilities where they make up the text, else as many of unknown probability."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens = []
    for entry in listed:
        raw = entry.get("bytes")
        text = decoder.decode(bytes(raw)) if isinstance(raw, list) else str(entry["token"])
        logprob = float(entry["logprob"])
        tokens.append(Token(text, math.exp(min(0.0, logprob)) if math.isfinite(logprob) else math.nan))
    return aligned(tokens or [Token("")] * max(count, 1 if written else 0), written)


def _seconds(header: str | None) -> float:
    """A Retry-After header in seconds; a date in it is not understood and counts as none."""
    try:
        return max(0.0, float(header)) if header else 0.0
    except ValueError:
        return 0.0


def _message(body: bytes) -> str:
    """What a server says went wrong, on one short line."""
    text = body[:2000].decode("utf-8", "replace")
    try:
        values = json.loads(text)
        error = values.get("error", values)
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:200]
