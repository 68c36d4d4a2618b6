"""A node whose model runs in a server that goes away: frames fail at once instead of waiting for it."""

from __future__ import annotations

import types

import numpy as np
from openai_server import BOX, Server, completion, dropped

from activeo3_ros.core import ActivePerception, Budget, Frame, Query, Status
from activeo3_ros.node.diagnostics import model_facts
from activeo3_ros.node.jobs import Settings
from activeo3_ros.node.perception_node import _load_and_warm_up
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.backends.remote_engine import RemoteEngine
from activeo3_ros.vlm.task import MllmTask


def test_the_models_of_a_node_do_not_wait_for_a_server_that_gave_no_answer():
    with Server(completion(BOX[1:] + "</answer>"), completion(BOX), dropped) as server:
        engine = RemoteEngine(server.url, "policy", max_attempts=1, retry_interval_s=600)
        models = ActivePerception(MllmSensing(engine), MllmTask(engine, crop_side=112), Budget(), examine_view=False)
        settings = Settings(Query(classes=("car",)), Budget(max_regions=1))
        perception = _load_and_warm_up(types.SimpleNamespace(build=lambda: models), settings)
        asked = len(server.requests)
        frame = Frame(np.zeros((480, 640, 3), np.uint8))
        results = [perception.perceive(frame, settings.query, settings.budget) for _ in range(2)]
        assert [result.status for result in results] == [Status.FAILED] * 2
        assert "not asked: no answer for" in results[1].status_message
        assert len(server.requests) == asked + 1
        assert "asked again every 600 s" in model_facts(perception)["sensing"]
        engine.close()
