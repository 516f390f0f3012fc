"""Rewriters with a real HTTP server for chat completions: good answers, bad answers, no answer."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from donod_fast.errors import InputError
from donod_fast.studies.damoc.rewriters import INSTRUCTION, OpenAIRewriter, RewriteError, rewrite

pytest.importorskip("openai", reason="the extra `rewrite` is not installed")


class Endpoint:
    """Answers by the first word of the text that it is sent; ``asked`` are the requests by text."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.over = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                endpoint.asked[text] += 1
                endpoint.requests.append((self.path, self.headers.get("Authorization", ""), body))
                status, content = endpoint.answer(text)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # the client went away
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, text: str) -> tuple[int, bytes]:
        kind = text.split()[0]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f" short {text} "}}
        if kind == "broken" or (kind == "flaky" and self.asked[text] == 1):
            return 500, b'{"error": {"message": "out of order"}}'
        if kind == "refused":
            return 400, b'{"error": {"message": "no such model"}}'
        if kind == "garbage":
            return 200, b"<html>not json</html>"
        if kind == "hang":
            self.over.wait(20)
        if kind == "cut":
            choice["finish_reason"] = "length"
        if kind == "silent":
            choice["message"] = {"role": "assistant", "content": None}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        return 200, json.dumps({**answer, "choices": [] if kind == "nothing" else [choice]}).encode()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.close()


def test_answers_come_back_in_order_with_the_key_and_the_instruction(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    rewriter = OpenAIRewriter(endpoint.url, "m", "SOME_KEY", workers=3)
    texts = [f"good {at}" for at in range(7)]
    assert rewrite(rewriter, texts) == [f"short {text}" for text in texts]
    path, key, body = endpoint.requests[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["temperature"]) == ("m", 0.0)
    assert body["messages"][0] == {"role": "system", "content": INSTRUCTION}


def test_what_fails_spoils_no_other_text(endpoint: Endpoint) -> None:
    texts = ["good", "flaky", "broken", "refused", "garbage", "hang", "cut", "silent", "nothing", "good too"]
    rewriter = OpenAIRewriter(endpoint.url, "m", timeout=0.4, retries=1, workers=10, give_up_after=100)
    found = dict(zip(texts, rewrite(rewriter, texts), strict=True))
    assert {text for text, one in found.items() if isinstance(one, str)} == {"good", "flaky", "good too"}
    for text, said in (
        ("broken", "out of order"),
        ("refused", "no such model"),
        ("hang", "timed out"),
        ("cut", "cut short"),
        ("silent", "without text"),
        ("nothing", "without text"),
    ):
        assert isinstance(found[text], RewriteError) and said in str(found[text]), found[text]
        assert endpoint.url in str(found[text])
    assert isinstance(found["garbage"], RewriteError)
    # Bounded: what may pass is asked twice, what will not once.
    assert [endpoint.asked[text] for text in ("broken", "hang", "flaky", "refused", "good")] == [2, 2, 2, 1, 1]


def test_an_endpoint_that_fails_text_after_text_is_left_alone(endpoint: Endpoint) -> None:
    rewriter = OpenAIRewriter(endpoint.url, "m", retries=0, workers=1, give_up_after=3)
    found = rewrite(rewriter, ["broken 0", "good", *[f"broken {at}" for at in range(1, 9)]])
    assert found[1] == "short good"
    assert endpoint.asked.total() == 5  # one failure, an answer, and three failures in a row
    assert "not asked" in str(found[-1])


def test_no_server_is_a_result_and_no_crash() -> None:
    [found] = rewrite(OpenAIRewriter("http://127.0.0.1:9/v1", "m", retries=0, timeout=1.0), ["text"])
    assert isinstance(found, RewriteError) and "127.0.0.1:9" in str(found)


def test_any_callable_is_a_rewriter_and_its_errors_affect_only_its_rows() -> None:
    def picky(text: str) -> str:
        if "!" in text:
            raise ValueError("no shouting")
        return None if "?" in text else text[:2]  # type: ignore[return-value]

    good, raised, wrong = rewrite(picky, ["abcd", "abcd!", "abcd?"])
    assert good == "ab"
    assert isinstance(raised, ValueError) and isinstance(wrong, RewriteError) and "NoneType" in str(wrong)


def test_a_rewriter_of_many_texts_that_answers_too_few_fails_for_all() -> None:
    class Few:
        def rewrite_many(self, texts: Sequence[str]) -> Sequence[str]:
            return texts[1:]

    class Raising:
        def rewrite_many(self, texts: Sequence[str]) -> Sequence[str]:
            raise OSError("gone")

    assert all("1 answers to 2 texts" in str(one) for one in rewrite(Few(), ["a", "b"]))
    assert all(isinstance(one, OSError) for one in rewrite(Raising(), ["a", "b"]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base_url": "127.0.0.1/v1"}, "http://"),
        ({"timeout": 0.0}, "timeout must be positive"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_a_bad_setting_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        OpenAIRewriter(**{"base_url": "http://127.0.0.1:9/v1", "model": "m", **given})
