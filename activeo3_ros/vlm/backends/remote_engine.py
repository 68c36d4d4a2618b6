# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Runs a model on a server that speaks the OpenAI protocol, such as `vllm serve` or SGLang, over HTTP with `httpx`.

One client serves all threads and keeps its connections, so a crop costs no handshake. Every request has a deadline that
covers waiting, retries and reading the answer. A server that is not there or busy (refused connections, 429, 502 to
504) is asked again until that deadline, with growing pauses; one that is broken (other 5xx, dropped connections,
malformed answers) a few times; one that refuses (other 4xx) not at all, unless it names a field that an answer can do
without: then it is asked without that field from there on. When a request of a batch has failed, and when the engine is
closed, the other requests are cancelled and their connections closed, upon which servers stop generating.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
import math
import os
import random
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import cv2

from ...core.errors import EngineError, InvalidInput
from ...core.frame import Image
from ...core.optional import require_package
from ...settings import validated, within
from ..answer_grammar import escaped
from ..engine import Reply, Request, Token, aligned
from ..families import family_named
from .circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A longer body is no answer of a few hundred tokens."""
MAX_REFUSAL_BYTES = 100_000
"""Of a refusal that are searched for the name of a field."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between attempts: doubled each time, with jitter, so that a fleet does not come back all at once."""
KEEP_ALIVE_S = 4.0
"""How long an unused connection is kept: less than the 5 s after which uvicorn, vLLM's web server, closes it."""
API_KEY_VARIABLE = "ACTIVEO3_API_KEY"
"""The environment variable with the server's key, if it wants one; keys do not belong into configuration files."""

STRUCTURED: dict[str, Callable[[str], dict[str, Any]]] = {
    "": lambda regex: {},
    "vllm": lambda regex: {"structured_outputs": {"regex": regex}},
    "vllm_guided": lambda regex: {"guided_regex": regex},
    "sglang": lambda regex: {"regex": regex},
}
"""Where servers take the answer grammar, a regular expression; the OpenAI protocol itself has no such field."""

BUSY_STATUSES = frozenset({429, 502, 503, 504})
"""Of servers that are loading, restarting or have too much to do."""
DISPENSABLE = {
    "include_stop_str_in_output": "",
    "logprobs": "the server gives no probabilities (it refuses logprobs): scores are unknown",
    "temperature": "the server refuses temperature: its answers may vary",
    "max_tokens": "",
}
"""Fields that some servers refuse, and what the user should know about answers without them."""

T = TypeVar("T")


class _TryAgain(Exception):
    """The server may answer later.

    Attributes:
        pause_s: How long it asked to be left alone.
        counts: Whether this was one of the attempts that a request has.
        at_once: Whether to ask again without a pause.
        answered: Whether it did answer, if not as it should.
    """

    def __init__(
        self, reason: str, pause_s: float = 0.0, counts: bool = True, at_once: bool = False, answered: bool = False
    ) -> None:
        super().__init__(reason)
        self.pause_s, self.counts, self.at_once, self.answered = pause_s, counts, at_once, answered


class _NoAnswerError(EngineError):
    """The server gave no answer at all. reason: why, without the rest of the message."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


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
        retry_interval_s: Annotated[float, within(0.1, 600)] = 5.0,
    ) -> None:
        """Check the settings. Nothing is sent before the first request.

        Args:
            url: Of the API, such as "http://localhost:8000/v1".
            model: Its name on that server.
            family: How that model sees images and writes coordinates: "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe",
                "qwen3_5" or "qwen3_5_moe"; the server does not tell.
            timeout_s: Seconds for one request with all its attempts.
            connect_timeout_s: Seconds for each connection.
            max_attempts: Of one request at a server that answers wrongly; one that is not there or busy is asked until
                `timeout_s`.
            max_concurrent: Requests, and connections, under way at a time.
            jpeg_quality: 1 to 100 for pictures as JPEG; 0 sends PNG, which loses nothing and is several times larger.
            forced_prefix: Let the server go on with a beginning of the answer (`continue_final_message` of vLLM and
                SGLang); a server without it must not be sent one, and then answers in its own way.
            structured: Let the server hold the model to the answer grammar of the prompt: "vllm" (0.11 and later),
                "vllm_guided" (before), "sglang"; "" leaves it to the model, whose mistakes the parser repairs.
            retry_interval_s: In a node, seconds between requests to a server that gave no answer; frames in between
                fail at once.

        Raises:
            InvalidInput: A setting is out of its range.
            MissingPackageError: `httpx` is not installed.
        """
        self._httpx = require_package("httpx", "to ask a model server", "activeo3_ros[remote]")
        self._endpoint = _endpoint(self._httpx, url)
        self.family = family_named(family)
        self.url, self.model_name = url.rstrip("/"), model
        self._name = f"{self.model_name} at {self.url}"
        self._breaker, self._fails_fast = CircuitBreaker(retry_interval_s), False
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._max_attempts, self._max_concurrent = max_attempts, max_concurrent
        self._jpeg_quality, self._forced_prefix = jpeg_quality, forced_prefix
        self.structured = structured
        self._refused: frozenset[str] = frozenset()
        """Of `DISPENSABLE`, the fields that the server does not take."""
        self._client: httpx.AsyncClient = self._httpx.AsyncClient(
            limits=self._httpx.Limits(
                max_connections=max_concurrent,
                max_keepalive_connections=max_concurrent,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
            verify=ssl.create_default_context() if self._endpoint.scheme == "https" else False,
            trust_env=False,  # a proxy of the shell's is not for a server that the preset names
        )
        self._loop = _LoopThread(self._client.aclose)
        weakref.finalize(self, self._loop.close)

    def describe(self) -> str:
        """The model and its server, and since when that gives no answer where it gives none."""
        state = self._breaker.describe()
        return f"{self._name} ({state})" if state else self._name

    def fail_fast(self) -> None:
        """From now on, fail at once while the server gives no answer, and ask it again every `retry_interval_s`.

        For a node: an old frame is worth nothing, and the next one comes. Without it each request waits for the server.
        """
        self._fails_fast = True

    def close(self) -> None:
        self._loop.close()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Ask for all requests at once.

        Args:
            requests: Any number; at most `max_concurrent` of all threads are under way at a time.

        Returns:
            The replies in the order of the requests.

        Raises:
            EngineError: A request has no answer in its time, the others of the batch are then cancelled; or the engine
                was closed.
        """
        if self._fails_fast and not self._breaker.may_try():
            raise EngineError(f"{self._name}: not asked: {self._breaker.describe()}")
        deadline = time.monotonic() + self._timeout_s
        future = self._loop.start(lambda: self._answer_all(requests, deadline))
        if future is None:
            raise EngineError(f"{self._name}: this engine was closed")
        try:
            replies = future.result()
        except _NoAnswerError as error:
            self._breaker.fail(error.reason)
            raise
        except CancelledError as error:
            raise EngineError(f"{self._name}: the request was given up") from error
        except BaseException:  # such as Ctrl-C
            future.cancel()
            raise
        self._breaker.succeed()
        return replies

    async def _answer_all(self, requests: Sequence[Request], deadline: float) -> list[Reply]:
        tasks = [asyncio.ensure_future(self._answer(request, deadline)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: Request, deadline: float) -> Reply:
        start, without = time.monotonic(), self._refused
        answered, waits = False, not (self._fails_fast and self._breaker.is_open)
        body = await asyncio.to_thread(self.body, request)
        reason, pause, asked, counted = "it was not asked in time", FIRST_PAUSE_S, 0, 0
        while counted < self._max_attempts and (left := deadline - time.monotonic()) > 0:
            if without != self._refused:
                without = self._refused
                body = await asyncio.to_thread(self.body, request)
            asked, counted = asked + 1, counted + 1
            try:
                return self.reply(request, await asyncio.wait_for(self._post(body, left, without), left + 0.1))
            except asyncio.TimeoutError:
                reason, answered = "its answer came too slowly", False
            except _TryAgain as error:
                reason, answered = str(error), error.answered
                if not waits and not error.at_once:
                    break
                counted -= not error.counts
                left = deadline - time.monotonic()
                if error.pause_s >= left:
                    reason += f", and it asked for {error.pause_s:.1f} s of rest" if error.pause_s else ""
                    break
                waiting = max(error.pause_s, pause * random.uniform(0.5, 1.0))
                if not error.at_once and counted < self._max_attempts:
                    await asyncio.sleep(min(waiting, left))
                    pause = min(2 * pause, LONGEST_PAUSE_S)
        tried = f"{asked} attempt{'s' if asked != 1 else ''}"
        took = time.monotonic() - start
        within = f"in {took:.1f} of {self._timeout_s:g} s" if took < 0.9 * self._timeout_s else ""
        message = (
            f"{self._name}: no answer after {tried} {within or f'within {self._timeout_s:g} s'}: {reason}; "
            "check that the server runs and is not overloaded"
        )
        raise EngineError(message) if answered else _NoAnswerError(message, reason)

    async def _post(self, body: bytes, left: float, without: frozenset[str]) -> Any:
        """The JSON of a good answer.

        Args:
            body: See `body`.
            left: Seconds until the deadline, of which a slow stream of small pieces may take more.
            without: Of `DISPENSABLE`, the fields that the body does without.

        Raises:
            _TryAgain: Asking again may help.
            EngineError: Asking again is of no use.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(API_KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        timeout = self._httpx.Timeout(left, connect=min(self._connect_timeout_s, left))
        content = bytearray()
        try:
            async with self._client.stream(
                "POST", self._endpoint, content=body, headers=headers, timeout=timeout
            ) as response:
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise EngineError(f"{self._name}: its answer is longer than {MAX_ANSWER_BYTES} bytes")
        except self._httpx.PoolTimeout as error:
            raise EngineError(
                f"{self._name}: a request had no turn within {self._timeout_s:g} s beside {self._max_concurrent} "
                "others; raise timeout_s or max_concurrent, or ask for fewer views"
            ) from error
        except (self._httpx.ConnectError, self._httpx.ConnectTimeout) as error:
            raise _TryAgain(_cause(error), counts=False) from error
        except self._httpx.HTTPError as error:
            raise _TryAgain(_cause(error)) from error
        return self._json(response.status_code, bytes(content), response.headers.get("Retry-After"), without)

    def _json(self, status: int, body: bytes, retry_after: str | None, without: frozenset[str]) -> Any:
        """What a complete response says; raises as `_post`."""
        if status == 429 or status >= 500:
            raise _TryAgain(
                f"HTTP {status} {_message(body)}", _seconds(retry_after), counts=status not in BUSY_STATUSES
            )
        if status != 200:
            named = body[:MAX_REFUSAL_BYTES].decode("utf-8", "replace")
            field = next((name for name in DISPENSABLE if name not in without and _names(named, name)), None)
            if status in (400, 422) and field is not None:
                self._refused |= {field}
                raise _TryAgain(f"HTTP {status} {_message(body)}", counts=False, at_once=True, answered=True)
            doubt = (
                f"; is structured: {self.structured} right for this server, or should it be ''?"
                if self.structured
                else ""
            )
            if any(_names(named, name) for name in ("continue_final_message", "add_generation_prompt")):
                doubt += "; this server needs forced_prefix: false"
            raise EngineError(
                f"{self._name}: HTTP {status} {_message(body)}; check the model's name, "
                f"${API_KEY_VARIABLE} and what the server allows{doubt}"
            )
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _TryAgain(f"an answer that is not JSON: {_message(body)}", answered=True) from error

    def body(self, request: Request) -> bytes:
        """The JSON body of a request, its picture encoded."""
        prompt = request.prompt
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": prompt.system},
            self._user(prompt.before, request.image, prompt.after),
        ]
        for turn in request.turns:
            messages.append({"role": "assistant", "content": turn.answer})
            messages.append(self._user(turn.before, turn.image, turn.after))
        values: dict[str, Any] = {
            "model": self.model_name,
            "messages": messages,
            "max_tokens": request.max_new_tokens,
            "temperature": 0,
            "logprobs": True,
        }
        # Without the stop text in its answer, a server that stopped would leave the answer open.
        if prompt.stop and "include_stop_str_in_output" not in self._refused:
            values |= {"stop": list(prompt.stop), "include_stop_str_in_output": True}
        if "max_tokens" in self._refused:
            values["max_completion_tokens"] = request.max_new_tokens
        for name in self._refused:
            values.pop(name, None)
        if prompt.prefix and self._forced_prefix:
            messages.append({"role": "assistant", "content": prompt.prefix})
            values |= {"add_generation_prompt": False, "continue_final_message": True}
        if self.family.no_thoughts and not prompt.thinks:
            values["chat_template_kwargs"] = {"enable_thinking": False}
        if prompt.regex:
            begun = "" if self._forced_prefix else escaped(prompt.prefix)
            values |= STRUCTURED[self.structured](begun + prompt.regex)
        return json.dumps(values).encode()

    def _user(self, before: str, image: Image | None, after: str) -> dict[str, Any]:
        """A message of the user, with one picture or none."""
        content: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
        if image is not None:
            content.append({"type": "image_url", "image_url": {"url": self._data_url(image)}})
        if after or not content:
            content.append({"type": "text", "text": after})
        return {"role": "user", "content": content}

    def _data_url(self, image: Image) -> str:
        if self._jpeg_quality:
            kind, options = "jpeg", [int(cv2.IMWRITE_JPEG_QUALITY), self._jpeg_quality]
        else:
            kind, options = "png", [int(cv2.IMWRITE_PNG_COMPRESSION), 1]
        ok, encoded = cv2.imencode(f".{kind}", image, options)
        if not ok:
            raise InvalidInput(f"a view of shape {image.shape} cannot be encoded as {kind}")
        return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"

    def reply(self, request: Request, values: Any) -> Reply:
        """A reply from the server's JSON. Raises _TryAgain if it is not what the protocol says."""
        try:
            choice = values["choices"][0]
            message = choice["message"]
            written, refusal = _written(message["content"])
            finish = choice.get("finish_reason")
            usage = values.get("usage") or {}
            count, prompt_tokens = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
            listed = (choice.get("logprobs") or {}).get("content") or []
            tokens = _tokens(listed, written, count)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"an answer that the protocol does not have ({type(error).__name__}: {error})"
            raise _TryAgain(reason, answered=True) from error
        stop = choice.get("stop_reason")
        if isinstance(stop, str) and stop in request.prompt.stop and not written.endswith(stop):
            written, tokens = written + stop, (*tokens, Token(stop))
        prefix = request.prompt.prefix if self._forced_prefix else ""
        size = request.image.shape[1], request.image.shape[0]
        notes = [note for name, note in DISPENSABLE.items() if name in self._refused and note]
        notes += _why_withheld(message, refusal, finish, written)
        return Reply(prefix + written, tokens, size, prompt_tokens, finish != "length", tuple(notes))


class _LoopThread:
    """An event loop in a thread of its own, for the requests of all threads. It starts with the first of them."""

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """at_end: what to run in the loop when it is closed and nothing else runs in it any more."""
        self._at_end = at_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._lock = threading.Lock()

    def start(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T] | None:
        """Start work in the loop; None where that was closed."""
        with self._lock:
            if self._closed:
                return None
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="remote-engine", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def close(self) -> None:
        """Cancel what runs in the loop, and end it. May be called twice."""
        with self._lock:
            loop, self._closed = (None if self._closed else self._loop), True
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(loop), loop)

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._at_end()
        loop.call_soon(loop.stop)


def _endpoint(library: Any, url: str) -> httpx.URL:
    """Where chats are answered. Raises InvalidInput for a url that is none."""
    try:
        base: httpx.URL = library.URL(url)
    except library.InvalidURL:
        base = library.URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise InvalidInput(f"url must begin with http:// or https:// and name a host, got {url!r}")
    return base.copy_with(path=f"{base.path.rstrip('/')}/chat/completions", query=None, fragment=None)


def _cause(error: BaseException) -> str:
    """The error that began a chain of errors, on one line: "Connection refused" instead of "all attempts failed"."""
    while (inner := getattr(error, "exceptions", [error.__cause__ or error.__context__])[0]) is not None:
        error = inner
    reason = str(error)
    if isinstance(error, ConnectionError) and error.errno:  # asyncio has words of its own for these
        reason = f"[Errno {error.errno}] {os.strerror(error.errno)}"
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


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


def _written(content: Any) -> tuple[str, str]:
    """The text, and the refusal, of a content that is a text, a list of parts, or null."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise TypeError(f"content is {type(content).__name__}")
    texts = [part["text"] for part in content if part.get("type") in ("text", "output_text")]
    return "".join(texts), " ".join(str(part["refusal"]) for part in content if part.get("refusal"))


def _why_withheld(message: dict[str, Any], refusal: str, finish: Any, written: str) -> list[str]:
    """Notes on an answer that the server or the model did not give, or not all of it."""
    notes = []
    refusal = " ".join(str(message.get("refusal") or refusal).split())[:200]
    if refusal:
        notes.append(f"the model refused: {refusal}")
    if finish == "content_filter":
        notes.append("the server's content filter withheld the answer, or a part of it")
    if not written and not notes:
        if message.get("tool_calls"):
            notes.append("the model called a tool and gave no answer")
        elif message.get("reasoning_content") or message.get("reasoning"):
            notes.append("the model reasoned and gave no answer")
        else:
            notes.append("the answer is empty")
    return notes


def _seconds(header: str | None) -> float:
    """A Retry-After header, seconds or a date, as seconds from now; 0 for none and for nonsense."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except (TypeError, ValueError):  # of Python before 3.10, and later
        return 0.0
    aware = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
    return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())


def _names(text: str, field: str) -> bool:
    """Whether a server's message names a field of the request."""
    return re.search(rf"\b{field}\b", text) is not None


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
