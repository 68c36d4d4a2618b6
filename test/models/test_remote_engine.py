"""The remote engine against a real HTTP server that answers well, late, in part, nonsense, or not at all."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import BOX, Server, busy, busy_until, completion, dripping, dropped, entry, refusing, slow

from activeo3_ros.core import ActivePerception, Budget, Frame, InvalidInput, Query, Status
from activeo3_ros.core.errors import EngineError
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.presets import load_preset
from activeo3_ros.vlm.backends.remote_engine import RemoteEngine, _seconds
from activeo3_ros.vlm.engine import Prompt, Request, Token, Turn, aligned
from activeo3_ros.vlm.task import MllmTask

PROMPT = Prompt("Where?", before="Findings. ", system="Be exact.", prefix="<answer>\n", stop=("</answer>",))


def request(side=56, value=0):
    return Request(np.full((side, side, 3), value, np.uint8), PROMPT, 99)


def ask(server, count=1, **settings):
    engine = RemoteEngine(server.url, "policy", **{"timeout_s": 5, **settings})
    try:
        return engine.generate([request() for _ in range(count)])
    finally:
        engine.close()


def test_a_request_says_in_the_protocol_what_it_wants():
    with Server() as server:
        engine = RemoteEngine(server.url, "policy", jpeg_quality=0)
        reply = engine.generate([request(value=7)])[0]
        engine.close()
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions" and body["model"] == "policy"
    system, user, assistant = body["messages"]
    assert system == {"role": "system", "content": "Be exact."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text"]
    png = base64.b64decode(user["content"][1]["image_url"]["url"].partition("base64,")[2])
    assert (cv2.imdecode(np.frombuffer(png, np.uint8), 1) == 7).all()
    assert assistant == {"role": "assistant", "content": "<answer>\n"} and body["continue_final_message"] is True
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (99, 0, ["</answer>"])
    assert reply.text == "<answer>\n" + BOX and reply.input_size == (56, 56) and reply.prompt_tokens == 300
    assert reply.probability([(len("<answer>\n"), len(reply.text))]) == pytest.approx(math.exp(-0.5))


def test_a_conversation_is_sent_as_the_messages_that_it_had():
    turns = (
        Turn("<tool_call>1</tool_call>", "<tool_response>", np.full((28, 56, 3), 9, np.uint8), "</tool_response>"),
        Turn("<tool_call>2</tool_call>", after="Error"),
    )
    with Server() as server:
        engine = RemoteEngine(server.url, "policy", jpeg_quality=0)
        engine.generate([Request(np.zeros((56, 56, 3), np.uint8), Prompt("Where?"), 99, turns=turns)])
        engine.close()
    messages = server.requests[0][2]["messages"]
    assert [each["role"] for each in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[2]["content"] == "<tool_call>1</tool_call>"
    assert [part["type"] for part in messages[3]["content"]] == ["text", "image_url", "text"]
    png = base64.b64decode(messages[3]["content"][1]["image_url"]["url"].partition("base64,")[2])
    assert cv2.imdecode(np.frombuffer(png, np.uint8), 1).shape == (28, 56, 3)
    assert messages[5]["content"] == [{"type": "text", "text": "Error"}]


@pytest.mark.parametrize(
    ("family", "thinks", "sent"), [("qwen3_5", False, True), ("qwen3_5", True, False), ("qwen3_vl", False, False)]
)
def test_a_server_of_qwen3_5_is_told_where_no_thoughts_are_wanted(family, thinks, sent):
    engine = RemoteEngine("http://localhost:1/v1", "policy", family=family)
    body = json.loads(engine.body(Request(np.zeros((64, 64, 3), np.uint8), Prompt("Where?", thinks=thinks))))
    engine.close()
    assert body.get("chat_template_kwargs") == ({"enable_thinking": False} if sent else None)


GRAMMAR = Prompt("Where?", prefix="<answer>\n[", stop=("</answer>",), regex=r"1\]")


@pytest.mark.parametrize(
    ("structured", "field"),
    [
        ("vllm", {"structured_outputs": {"regex": r"1\]"}}),
        ("vllm_guided", {"guided_regex": r"1\]"}),
        ("sglang", {"regex": r"1\]"}),
        ("", {}),
    ],
)
def test_a_server_holds_the_model_to_the_answer_grammar(structured, field):
    with Server() as server:
        engine = RemoteEngine(server.url, "policy", structured=structured)
        engine.generate([Request(np.zeros((56, 56, 3), np.uint8), GRAMMAR), request()])
        engine.close()
    bodies = [body for _, _, body in server.requests]
    asked = [{name: body[name] for name in ("structured_outputs", "guided_regex", "regex") if name in body}
             for body in sorted(bodies, key=lambda body: body["max_tokens"], reverse=True)]  # fmt: skip
    assert asked == [field, {}]  # a prompt that names no grammar leaves the answer to the model


def test_a_server_that_is_not_sent_the_beginning_is_held_to_the_whole_answer():
    engine = RemoteEngine("http://localhost:1/v1", "policy", structured="vllm", forced_prefix=False)
    body = json.loads(engine.body(Request(np.zeros((56, 56, 3), np.uint8), GRAMMAR)))
    engine.close()
    assert re.fullmatch(body["structured_outputs"]["regex"], "<answer>\n[1]")


def test_a_server_that_knows_no_grammars_is_named_in_one_line():
    def refuse(handler):
        assert "guided_regex" in handler.request_body
        handler.send(400, b'{"error": {"message": "extra fields not permitted: guided_regex"}}')

    with Server(refuse) as server:
        engine = RemoteEngine(server.url, "policy", structured="vllm_guided")
        with pytest.raises(EngineError, match=r"not permitted: guided_regex.*structured: vllm_guided right") as refusal:
            engine.generate([Request(np.zeros((56, 56, 3), np.uint8), GRAMMAR)])
        engine.close()
    assert "\n" not in str(refusal.value) and len(server.requests) == 1


def test_regions_and_findings_are_asked_for_in_their_grammar():
    with Server(completion(BOX[1:] + "</answer>"), completion(BOX)) as server:
        engine = RemoteEngine(server.url, "policy", structured="vllm")
        loop = ActivePerception(MllmSensing(engine), MllmTask(engine, crop_side=112), Budget(), examine_view=False)
        result = loop.perceive(Frame(np.zeros((480, 640, 3), np.uint8)), Query(classes=("car",)))
        engine.close()
    assert result.status is Status.COMPLETE and len(result.regions) == 1
    regions, boxes = (body["structured_outputs"]["regex"] for _, _, body in server.requests)
    assert re.fullmatch(regions, BOX[1:] + "</answer>")
    assert re.fullmatch(boxes, BOX[1:] + "\n```")


def test_replies_come_in_the_order_of_their_requests_however_late_each_is():
    def answer(handler):
        limit = handler.request_body["max_tokens"]
        time.sleep(0.01 * (5 - limit))
        handler.answer(completion(f"number {limit}"))

    with Server(*[answer] * 5) as server:
        engine = RemoteEngine(server.url, "policy")
        replies = engine.generate([Request(np.zeros((56, 56, 3), np.uint8), Prompt("?"), n) for n in (1, 2, 3, 4, 5)])
        engine.close()
    assert [reply.text for reply in replies] == [f"number {n}" for n in (1, 2, 3, 4, 5)]


def test_requests_one_after_the_other_share_one_connection():
    with Server() as server:
        engine = RemoteEngine(server.url, "policy")
        for _ in range(20):
            engine.generate([request()])
        engine.close()
    assert (len(server.requests), server.connections) == (20, 1)


def test_all_threads_share_one_pool_of_connections():
    """Eight threads with four requests each: never more connections than requests under way at a time."""
    with Server(*[slow(0.01)] * 32) as server:
        engine = RemoteEngine(server.url, "policy", max_concurrent=4)
        with ThreadPoolExecutor(8) as threads:
            replies = list(threads.map(lambda _: engine.generate([request()] * 4), range(8)))
        engine.close()
    assert [len(each) for each in replies] == [4] * 8
    assert len(server.requests) == 32 and server.connections <= 4


def test_a_connection_serves_on_after_an_error_that_the_server_answered():
    with Server(500, 429) as server:
        assert ask(server)[0].text.endswith(BOX)
    assert (len(server.requests), server.connections) == (3, 1)


def test_a_proxy_of_the_shell_is_not_asked(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Server() as server:
        assert ask(server)[0].text.endswith(BOX)


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'activeo3_ros\[remote\]'"):
        RemoteEngine("http://localhost:1/v1", "policy")


@pytest.mark.parametrize(
    "trouble",
    [500, 503, 429, dropped, b"<html>bad gateway</html>", b"", b"[]", {"choices": []}, {"choices": [{"message": 7}]},
     completion(choices=[{"message": {"content": ["no", "text"]}}]), b"[" * 100_000],
    ids=["500", "503", "429", "dropped", "html", "empty", "list", "no choice", "no message", "no text", "nested"],
)  # fmt: skip
def test_a_server_that_stumbles_is_asked_again(trouble):
    with Server(trouble) as server:
        assert ask(server)[0].text.endswith(BOX)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "message"),
    [(500, "HTTP 500 status 500"), (dropped, "no answer after 3 attempts"), (b"<html>", "not JSON: <html>")],
)
def test_a_server_that_stays_broken_is_given_up(trouble, message):
    with Server(*[trouble] * 5) as server, pytest.raises(EngineError, match=message):
        ask(server, max_attempts=3)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_server_that_refuses_is_not_asked_again(status):
    with Server(status) as server, pytest.raises(EngineError, match=f"HTTP {status} status {status}; check the model"):
        ask(server)
    assert len(server.requests) == 1


def test_a_busy_server_is_left_alone_as_long_as_it_asks():
    with Server(busy(0.4)) as server:
        start = time.monotonic()
        ask(server)
        assert time.monotonic() - start >= 0.4  # a lower bound: it was left alone


@pytest.mark.parametrize("trouble", [slow(30), dripping, busy(30)], ids=["slow", "dripping", "busy"])
def test_no_request_takes_longer_than_its_time(trouble):
    with Server(*[trouble] * 5) as server, pytest.raises(EngineError, match=r"(within|of) 0\.5 s"):
        ask(server, timeout_s=0.5)  # each of them would go on for at least 20 s


def test_a_server_that_is_not_there_is_asked_for_the_stated_time_and_named():
    with Server() as server:
        url = server.url
    engine = RemoteEngine(url, "policy", timeout_s=2, max_attempts=1)
    start = time.monotonic()
    with pytest.raises(EngineError, match=rf"policy at {url}: no answer after \d+ attempts within 2 s.*refused"):
        engine.generate([request()])
    assert time.monotonic() - start >= 1.9
    engine.close()


def test_a_server_that_comes_up_late_is_reached():
    with Server() as gone:
        url = gone.url
    engine = RemoteEngine(url, "policy", timeout_s=20, max_attempts=1)
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(engine.generate, [request()])
        time.sleep(1.2)  # longer than four attempts took
        with Server(port=int(url.split(":")[2].split("/")[0])):
            assert future.result()[0].text.endswith(BOX)
    engine.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_loading_has_more_than_its_attempts(status):
    with Server(*[status] * 4) as server:
        assert ask(server, max_attempts=1, timeout_s=20)[0].text.endswith(BOX)


def test_the_time_that_was_tried_is_told():
    with Server(*[500] * 5) as server, pytest.raises(EngineError, match=r"after 2 attempts in 0\.\d of 5 s: HTTP 500"):
        ask(server, max_attempts=2)


def test_a_busy_server_is_left_alone_until_the_date_that_it_names():
    with Server(busy_until(1.2)) as server:
        start = time.time()
        ask(server, timeout_s=20)
        assert time.time() - start >= 1.0  # a lower bound: dates have whole seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", 0), ("nan", 0),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 99 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_every_retry_after_is_read(header, seconds):
    assert _seconds(header) == seconds


def test_a_date_far_ahead_gives_the_request_up_at_once_and_says_why():
    with Server(busy_until(300)) as server, pytest.raises(EngineError, match=r"HTTP 503 loading, .* s of rest"):
        ask(server, timeout_s=20)
    assert len(server.requests) == 1


def parts(*content):
    answer = completion()
    answer["choices"][0]["message"]["content"] = list(content)
    return answer


def test_an_answer_in_parts_is_put_together():
    halves = [
        {"type": "text", "text": BOX[:20]},
        {"type": "reasoning", "text": "?"},
        {"type": "text", "text": BOX[20:]},
    ]
    with Server(parts(*halves)) as server:
        reply = ask(server)[0]
    assert reply.text.endswith("\n" + BOX) and reply.notes == ()
    assert reply.probability([(len(reply.text) - 5, len(reply.text))]) == pytest.approx(math.exp(-0.5))


def without_text(finish="stop", **message):
    answer = completion("", finish=finish)
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, **message}
    return answer


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (without_text(refusal="I cannot help\nwith that."), "the model refused: I cannot help with that."),
        (parts({"type": "refusal", "refusal": "No."}), "the model refused: No."),
        (without_text("content_filter"), "the server's content filter withheld the answer"),
        (without_text("length", reasoning_content="Let me see"), "the model reasoned and gave no answer"),
        (without_text("length"), "the answer was cut off"),
        (without_text("tool_calls", tool_calls=[{"id": "1"}]), "the model called a tool and gave no answer"),
        (without_text(), "the answer is empty"),
    ],
)
def test_an_answer_without_text_is_told_by_its_name_and_no_empty_road(answer, note):
    with Server(answer, completion()) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=5, max_concurrent=1)
        loop = ActivePerception(MllmSensing(engine), MllmTask(engine, crop_side=112), Budget(), examine_view=False)
        frame, query = Frame(np.zeros((480, 640, 3), np.uint8)), Query(classes=("car",))
        unsure = loop.perceive(frame, query)
        server.script.extend([completion(BOX + "</answer>"), answer])
        failed = loop.perceive(frame, query)
        engine.close()
    assert f"sensing: {note}" in unsure.status_message
    assert failed.status is Status.FAILED and note in failed.status_message


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        (["include_stop_str_in_output"], 0),
        (["logprobs"], 1),
        (["logprobs", "include_stop_str_in_output", "temperature"], 2),
        (["max_tokens"], 0),
    ],
)
def test_a_server_that_refuses_a_field_is_asked_without_it(fields, notes):
    with Server(*[refusing(*fields)] * 20) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=5, max_attempts=1)
        replies = [engine.generate([request()])[0] for _ in range(3)]
        engine.close()
    bodies = [body for _, _, body in server.requests]
    assert len(bodies) == len(fields) + 3, "what was refused once is not sent again"
    assert not set(fields) & set(bodies[-1]) and ("max_tokens" in bodies[-1] or "max_completion_tokens" in bodies[-1])
    assert ("stop" in bodies[-1]) == ("include_stop_str_in_output" in bodies[-1]), "else an answer would lack its end"
    assert all(reply.text.endswith(BOX) and len(reply.notes) == notes for reply in replies)


def test_requests_under_way_together_learn_from_one_refusal():
    with Server(*[refusing("logprobs")] * 40) as server:
        assert len(ask(server, 8, max_attempts=1)) == 8


def test_a_server_that_insists_on_refusing_is_given_up():
    refusal = b'{"detail": [{"loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}]}'
    with Server(*[lambda handler: handler.send(422, refusal)] * 9) as server:
        with pytest.raises(EngineError, match=r"HTTP 422 .*logprobs"):
            ask(server)
        assert len(server.requests) == 2


def test_a_server_without_forced_beginnings_is_named():
    refusal = b'{"error": {"message": "unknown field: continue_final_message"}}'
    forced = pytest.raises(EngineError, match=r"continue_final_message.*needs forced_prefix: false")
    with Server(lambda handler: handler.send(400, refusal)) as server, forced:
        ask(server)


def test_no_more_requests_are_under_way_than_allowed():
    with Server(*[slow(0.05)] * 12) as server:
        assert len(ask(server, 12, max_concurrent=3)) == 12
        assert server.most_under_way <= 3


def test_requests_that_wait_too_long_for_their_turn_are_given_up():
    with Server(*[slow(0.4)] * 5) as server:
        with pytest.raises(EngineError, match="within 1 s"):
            ask(server, 5, max_concurrent=1, timeout_s=1)
        assert len(server.requests) < 5, "what waited was never sent"


def test_one_failure_gives_up_the_rest_of_its_batch():
    def refuse(handler):
        while server.most_under_way < 3:
            time.sleep(0.01)
        handler.answer(400)

    with Server(refuse, slow(30), slow(30)) as server:
        with pytest.raises(EngineError, match="HTTP 400"):
            ask(server, 3, timeout_s=20)
        assert server.gone.wait(30)


def test_closing_the_engine_ends_what_is_under_way():
    with Server(slow(30)) as server:
        engine = RemoteEngine(server.url, "policy")
        failures = []

        def call():
            try:
                engine.generate([request()])
            except EngineError as error:
                failures.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        engine.close()
        thread.join(10)
        assert failures and "given up" in failures[0]
        assert server.gone.wait(30)
    with pytest.raises(EngineError, match="was closed"):
        engine.generate([request()])


def test_a_stop_within_a_token_leaves_every_token_its_probability():
    """As vLLM's server answers: the text ends at the stop, the last token goes on to the end of its line."""
    answer = completion(BOX)
    answer["choices"][0]["logprobs"]["content"][-1] = entry("]\n", -0.25)
    with Server(answer) as server:
        engine = RemoteEngine(server.url, "policy")
        [reply] = engine.generate([request()])
        engine.close()
    assert reply.text.endswith(BOX) and "".join(token.text for token in reply.tokens) == BOX
    assert reply.tokens[-1].probability == pytest.approx(math.exp(-0.25))
    assert reply.probability([(0, len(reply.text) - 1)]) == pytest.approx(math.exp(-0.5))


@given(st.lists(st.text("ab]}\n", max_size=3)), st.integers(0, 20))
def test_tokens_always_make_up_the_text(pieces, length):
    """Whatever a server lists: fitted where it can be, of unknown probability else."""
    tokens = [Token(piece, 0.5, index) for index, piece in enumerate(pieces)]
    whole = "".join(pieces)
    fitted = aligned(tokens, whole[:length])
    assert "".join(token.text for token in fitted) == whole[:length]
    assert [token.id for token in fitted] == [token.id for token in tokens]
    assert all(token.probability == 0.5 for token in fitted), "the text is a beginning of what the tokens say"
    other = aligned(tokens, "z" + whole)
    assert not tokens or ("".join(token.text for token in other) == "z" + whole and math.isnan(other[0].probability))


def test_an_answer_without_probabilities_has_no_score_but_its_tokens_count():
    bare = completion()
    bare["choices"][0]["logprobs"] = None
    with Server(bare) as server:
        reply = ask(server)[0]
    assert math.isnan(reply.probability([(0, len(reply.text))])) and len(reply.tokens) == len(BOX)


def test_an_answer_that_was_cut_off_is_not_finished():
    with Server(completion("[1", finish="length")) as server:
        assert ask(server)[0].finished is False


def test_the_stop_text_that_a_server_keeps_to_itself_is_put_back():
    stopped = completion("[]")
    stopped["choices"][0]["stop_reason"] = "</answer>"
    with Server(stopped) as server:
        assert ask(server)[0].text == "<answer>\n[]</answer>"


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ACTIVEO3_API_KEY", "secret")
    with Server() as server:
        ask(server)
    assert server.requests[0][1]["Authorization"] == "Bearer secret"


def test_a_frame_goes_the_whole_way_and_a_broken_server_is_no_empty_road():
    with Server(completion(BOX + "</answer>"), completion(BOX), *[500] * 20) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=3, max_attempts=2)
        loop = ActivePerception(MllmSensing(engine), MllmTask(engine, crop_side=112), Budget(), examine_view=False)
        frame, query = Frame(np.zeros((480, 640, 3), np.uint8)), Query(classes=("car",))
        good, bad = loop.perceive(frame, query), loop.perceive(frame, query)
        engine.close()
    assert good.status is Status.COMPLETE and [d.label for d in good.detections] == ["car"]
    assert bad.status is Status.FAILED and "HTTP 500" in bad.status_message


def test_the_preset_remote_needs_neither_torch_nor_the_server_to_load():
    perception = load_preset("remote").build()
    assert perception.sensing.engine is perception.task.engine
    assert "http://localhost:8000/v1" in perception.sensing.engine.describe()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"url": "http://host:port/v1"}, "must begin with http"),
        ({"timeout_s": 0}, "timeout_s must be 0.1 to 600, got 0"),
        ({"family": "gpt"}, r"unknown family 'gpt'.*known are qwen2_5_vl, qwen3_vl"),
        ({"structured": "yes"}, "structured must be one of '', 'vllm', 'vllm_guided', 'sglang', got 'yes'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(InvalidInput, match=message):
        RemoteEngine(**{"url": "http://localhost:1/v1", "model": "policy", **settings})


# A server that is away, in a node


def fails(engine) -> str:
    with pytest.raises(EngineError) as failure:
        engine.generate([request()])
    return str(failure.value)


def test_after_a_failure_a_node_does_not_ask_until_the_interval_is_over():
    with Server(dropped) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=5, max_attempts=1, retry_interval_s=600)
        engine.fail_fast()
        assert "no answer after 1 attempt" in fails(engine)
        assert re.search(r"not asked: no answer for \d s, asked again every 600 s: ", fails(engine))
        assert len(server.requests) == 1
        assert "(no answer for" in engine.describe()
        engine.close()


def test_the_first_answer_of_a_server_that_is_back_ends_that():
    with Server(dropped) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=5, max_attempts=1, retry_interval_s=0.1)
        engine.fail_fast()
        fails(engine)
        time.sleep(0.11)
        assert engine.generate([request()])[0].text.endswith(BOX)
        assert engine.describe() == f"policy at {server.url}"
        assert engine.generate([request()])[0].text.endswith(BOX)
        engine.close()


def test_a_server_that_is_still_away_is_tried_once_and_not_waited_for():
    with Server() as server:
        url = server.url
    engine = RemoteEngine(url, "policy", timeout_s=0.3, retry_interval_s=0.1)
    engine.fail_fast()
    assert "within 0.3 s" in fails(engine)
    time.sleep(0.11)
    assert re.search(r"no answer after 1 attempt in 0\.\d of 0\.3 s: .*refused", fails(engine))
    engine.close()


def test_a_server_that_answers_wrongly_is_not_away_and_other_commands_than_a_node_wait():
    with Server(b"no json", b"no json", dropped, dropped) as server:
        engine = RemoteEngine(server.url, "policy", timeout_s=5, max_attempts=2, retry_interval_s=600)
        engine.fail_fast()
        assert "not JSON" in fails(engine)
        engine._fails_fast = False
        fails(engine)
        assert engine.generate([request()])[0].text.endswith(BOX)
        assert len(server.requests) == 5
        engine.close()
