"""The hub client's messages about retries become one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from donod_fast.system.hub_retries import CLIENT_LOGGER, OneLine, one_line_for_retries


@pytest.fixture
def client() -> Iterator[logging.Logger]:
    logger = logging.getLogger(CLIENT_LOGGER)
    before = list(logger.filters)
    logger.filters.clear()
    one_line_for_retries()
    yield logger
    logger.filters[:] = before


def failed_request(client: logging.Logger, url: str = "https://huggingface.co/a/b/config.json") -> None:
    """What the client logs in five retries."""
    for attempt in range(1, 6):
        client.warning(f"'[Errno -2] Name or service not known' thrown while requesting HEAD {url}")
        client.warning(f"Retrying in {attempt}s [Retry {attempt}/5].")


def test_retries_of_a_host_are_one_line_with_the_cause(
    client: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    failed_request(client)
    failed_request(client, "https://huggingface.co/a/b/tokenizer.json")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("huggingface.co does not answer ([Errno -2] Name or service not known); ")
    failed_request(client, "https://mirror.example/a/b/config.json")
    assert len(caplog.messages) == 2


def test_an_http_error_and_a_rate_limit_are_one_line_too(
    client: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    client.warning("HTTP Error 503 thrown while requesting GET https://huggingface.co/api/models/a/b")
    client.warning("Rate limited. Waiting 3.0s before retry [Retry 1/5].")
    assert len(caplog.messages) == 1 and "(HTTP Error 503)" in caplog.messages[0]


def test_other_messages_of_the_client_pass(client: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    client.warning("Error closing client: broken")
    assert caplog.messages == ["Error closing client: broken"]


def test_the_filter_is_installed_once(client: logging.Logger) -> None:
    one_line_for_retries()
    assert sum(isinstance(known, OneLine) for known in client.filters) == 1


def test_the_client_still_logs_under_the_name_and_in_the_words_we_filter() -> None:
    """The names below are private to huggingface_hub; if they change, the filter must follow."""
    import inspect

    from huggingface_hub.utils import _http

    assert _http.logger.name == CLIENT_LOGGER
    source = inspect.getsource(_http)
    assert "thrown while requesting {method} {url}" in source and "Retrying in {" in source
