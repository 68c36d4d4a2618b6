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

"""Continuous batching: a request joins, at the next step of the model, those of other threads.

A camera's frame thus waits for one step and for no other camera's answer. There is no thread of its own: of the threads
that wait for an answer one steps the model for all, until its own answer is complete, and then the next one does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..core.errors import EngineError
from .dynamic_batching import Call, answer_together

logger = logging.getLogger(__name__)

Turn = Callable[[], AbstractContextManager[Any]]


class Stepped(Protocol):
    """A model that decodes all its requests step by step. Only one thread uses it at a time."""

    def add(self, request: Any) -> str:
        """Accept a request. Returns its name."""

    def step(self) -> Iterable[tuple[str, Any]]:
        """Decode one step. Returns the names and answers of the requests that are complete now."""

    def abort(self, names: Sequence[str]) -> None:
        """Drop requests, of which some may be complete."""


class ContinuousBatching:
    """Lets many threads call one stepped model at once."""

    def __init__(self, model: Stepped, turn: Turn) -> None:
        """Wrap a model.

        Args:
            model: Is used by this object alone.
            turn: Makes the context of each step, such as a lock that other models share.
        """
        self._model, self._turn = model, turn
        self._changed = threading.Condition()
        self._arrived: list[Call] = []
        self._under_way: dict[str, tuple[Call, int]] = {}
        self._is_led = False

    def generate(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests together with those of other threads.

        Where a step fails, the calls under way are asked again in halves, so that an error is this call's own.

        Returns:
            The answers in the order of the requests.

        Raises:
            Exception: Of the model, for these requests.
        """
        if not requests:
            return []
        call = Call(requests, [None] * len(requests))
        with self._changed:
            self._arrived.append(call)
            while self._is_led and not call.answered:
                self._changed.wait()
            leads = not call.answered
            self._is_led |= leads
        if leads:
            try:
                while not call.answered:
                    self._step()
            finally:
                with self._changed:
                    self._is_led = False
                    self._changed.notify_all()
        if call.error is not None:
            raise call.error
        return call.replies

    def _step(self) -> None:
        """Add the calls that have arrived, and decode one step. However it ends, no call is forgotten."""
        while (call := self._next_arrived()) is not None:
            self._add(call)
        if not self._under_way:
            return
        try:
            with self._turn():
                complete = list(self._model.step())
        except BaseException as error:
            self._recover(error)
            return
        for name, answer in complete:
            if name not in self._under_way:
                continue  # dropped before
            call, index = self._under_way.pop(name)
            call.replies[index] = answer
            if not any(other is call for other, _ in self._under_way.values()):
                self._end(call)

    def _next_arrived(self) -> Call | None:
        with self._changed:
            return self._arrived.pop(0) if self._arrived else None

    def _add(self, call: Call) -> None:
        names: list[str] = []
        try:
            for index, request in enumerate(call.requests):
                names.append(self._model.add(request))
                self._under_way[names[-1]] = call, index
        except BaseException as error:
            for name in names:
                self._under_way.pop(name, None)
            self._end(call, _error_of(error))
            _abort(self._model, names)
            if not isinstance(error, Exception):
                raise

    def _recover(self, error: BaseException) -> None:
        """After a step that failed: a call that was alone fails, several are asked again in halves."""
        calls = list({id(call): call for call, _ in self._under_way.values()}.values())
        names = list(self._under_way)
        self._under_way.clear()
        try:
            _abort(self._model, names)
            if not isinstance(error, Exception):  # such as Ctrl-C, which is the leading thread's alone
                raise error
            if len(calls) > 1:
                alone = ContinuousBatching(self._model, self._turn)
                middle = len(calls) // 2
                for half in (calls[:middle], calls[middle:]):
                    answer_together(alone, half)
                    for call in half:
                        self._end(call, call.error)
        finally:
            for call in calls:
                if not call.answered:
                    self._end(call, _error_of(error))

    def _end(self, call: Call, error: Exception | None = None) -> None:
        with self._changed:
            call.error, call.answered = error, True
            self._changed.notify_all()


def _error_of(error: BaseException) -> Exception:
    """The error for the threads that wait for an answer."""
    return error if isinstance(error, Exception) else EngineError("interrupted while several were answered")


def _abort(model: Stepped, names: Sequence[str]) -> None:
    """Drop requests. A broken model may be unable to; its own error has been reported already."""
    try:
        model.abort(names)
    except Exception:
        logger.warning("requests that failed cannot be dropped", exc_info=True)
