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

"""Checks a query against the loaded models and loads what it needs besides them, without waiting. Knows no ROS."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace

from ..core import ActivePerception, PerceptionError, Query, UnsupportedQuery

logger = logging.getLogger(__name__)

ANSWER_S = 0.02
"""Seconds that a check may take: an unsupported query is known sooner, loading a model takes much longer."""


@dataclass
class Loading:
    """The loading of what one query needs. error: why the models cannot serve it."""

    done: threading.Event = field(default_factory=threading.Event)
    error: UnsupportedQuery | None = None


class QueryLoader:
    """Keeps frames on the former query until all is loaded that the standing one needs."""

    def __init__(self, query: Query) -> None:
        """Start with a query whose models are loaded together with the preset."""
        self._in_force = query
        self._loading: dict[Query, Loading] = {}

    def check(self, query: Query, perception: ActivePerception) -> None:
        """Load what a query needs, in a thread of its own that is not waited for; see `ready`.

        Raises:
            UnsupportedQuery: The models cannot serve the query; says what can be asked.
        """
        key = replace(query, revision=0)
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = Loading()
            arguments = (perception, key, loading)
            threading.Thread(target=self._load, args=arguments, name="query", daemon=True).start()
        loading.done.wait(ANSWER_S)
        if loading.error is not None:
            raise loading.error

    def ready(self, query: Query) -> bool:
        """Whether all is loaded that a query needs."""
        return replace(query, revision=0) not in self._loading

    def in_force(self, standing: Query) -> Query:
        """The query that frames use now: the standing one if it is ready, else the former one."""
        if self.ready(standing):
            self._in_force = standing
        return self._in_force

    def _load(self, perception: ActivePerception, query: Query, loading: Loading) -> None:
        try:
            perception.load(query)
        except UnsupportedQuery as error:
            loading.error = error
        except PerceptionError as error:
            logger.error("what the query %r needs could not be loaded; its frames will fail: %s", query.text, error)
        except Exception:
            logger.exception("what the query %r needs could not be loaded; its frames will fail", query.text)
        finally:
            self._loading.pop(query, None)
            loading.done.set()
