"""Secrets of URLs in any text: hidden whatever is around them, put back for opening, and no part of a name."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from attack_counts import Attacks
from canaries import PLACES, canary, leaks

from donod_fast.confidential import MARK, VARIABLE, hidden, hide, reveal, without_known_secrets, without_secrets
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.system.places import RemotePlace, filesystem, hidden_names
from donod_fast.system.storage import open_storage

SCHEMES = ("http", "https", "s3", "gs", "abfs", "sftp", "ftp", "hf", "memory", "HTTPS", "webhdfs")
AROUND = (
    "{}", "'{}'", '"{}"', "({})", "<{}>", "[{}]", "`{}`", "{},", "{}.", "{}: no such file", "GET {} failed",
    "url={}", "error(message='Forbidden', url='{}')", "simplecache::{}", "zip://a.jsonl::{}", "{}\n", "\t{}\t",
    "two: {} {}", "{},{}", "https://proxy.example/?to={}", "{{'url': '{}'}}", "b'{}'", "…{}…", "\u202e{}", "a{}",
)  # fmt: skip
FORMS = (
    str,
    lambda url: quote(url, safe=""),
    lambda url: quote(quote(url, safe=""), safe=""),
    lambda url: url.replace("/", "\\/"),
    lambda url: url.replace("://", ":/"),
    lambda url: url.replace("//somebody:", "//some%62ody:"),
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(VARIABLE)]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def drawn(seed: int) -> tuple[str, str, str]:
    """A secret, a URL with it, and a text around the URL in one of its written forms."""
    draw = random.Random(seed)
    secret = canary(seed)
    if draw.random() < 0.3:
        at = draw.randrange(4, len(secret) - 8)  # inside, so that the search looks for the longest piece
        secret = secret[:at] + quote(draw.choice("/?#@:%& +"), safe="") + secret[at:]
    place = draw.choice(list(PLACES))
    scheme = draw.choice(SCHEMES)
    if "?{secret}" in PLACES[place] and not scheme.lower().startswith("http"):
        scheme = "https"  # elsewhere a question mark is a wildcard
    if scheme == "abfs" and place in ("user", "token as user"):
        scheme = "s3"  # the name before @ is that of a container
    host = draw.choice(("h", "host.example", "host.example:8443", "[::1]:80", "bucket"))
    path = draw.choice(("x.jsonl", "a/b/c.jsonl.gz", "", "ä/ö.csv", "part-*.jsonl", "a%20b.jsonl"))
    url = PLACES[place].format(scheme=scheme, secret=secret, host=host, path=path)
    return secret, url, draw.choice(AROUND).replace("{}", draw.choice(FORMS)(url)).replace("{{", "{").replace("}}", "}")


def longest_piece(secret: str) -> str:
    return max(secret.split("%"), key=len)[2:]


@pytest.mark.attack
def test_no_text_shows_the_secret_of_a_url(attacks: Attacks) -> None:
    number = attacks.number(3_000, 30_000)
    found = []
    for seed in range(number):
        secret, url, text = drawn(seed)
        cleaned = without_secrets(text)
        if leaks([longest_piece(secret)], [cleaned, hide(url)]):
            found.append((text, cleaned, hide(url)))
        assert without_secrets(cleaned) == cleaned
        nothing_left()
    attacks.count("secrets", "a URL in a text", tried=number, got_through=len(found))
    assert not found, found[:3]


def nothing_left() -> None:
    for name in [name for name in os.environ if name.startswith(VARIABLE)]:
        del os.environ[name]


def test_a_hidden_url_is_revealed_to_itself_alone() -> None:
    for seed in range(1_000):
        _, url, _ = drawn(seed)
        marked = hide(url)
        assert MARK in marked and hide(marked) == marked
        assert reveal(marked) == url
        nothing_left()
        assert reveal(marked) is None
        os.environ[VARIABLE] = f"https://other.example/x?sig=1 {url}"
        assert reveal(marked) == url
        nothing_left()


def test_urls_that_differ_in_their_secret_alone_are_one_name() -> None:
    for template in PLACES.values():
        one, two = (template.format(scheme="https", secret=canary(n), host="h", path="x.jsonl") for n in (1, 2))
        assert hide(one) == hide(two) == str(RemotePlace(two))
        with pytest.raises(InputError, match="given twice, with different secrets"):
            hidden_names([one, two])
    assert hidden_names([two, two]) == (hide(two),) * 2


@pytest.mark.parametrize(
    "name",
    [
        *("s3://bucket/part-?.jsonl", "s3://b/day=?/part=1.jsonl", "memory://a/b", "hf://datasets/o/n@main/x.jsonl"),
        *("https://h/x.jsonl", "https://h:8443/x.jsonl?version=3", "https://h/x?raw", "abfs://c@a.dfs.core.net/x"),
        *("data/rows.jsonl", "C:\\rows", "a: b", "", "/a@b:c?d=e#f", "file:///data/x.jsonl", "owner/name", "10:30"),
        *("\0", "\ud800://", "s3://bucket/x?versionId=3HL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY"),
    ],
)
def test_names_without_a_secret_stay_as_they_are(name: str) -> None:
    assert hide(name) == name == reveal(name) == without_secrets(name)


def test_a_hostile_url_ends_in_no_error() -> None:
    for seed in range(2_000):
        draw = random.Random(seed)
        text = "".join(
            draw.choices(["://", "@", ":", "/", "?", "#", "%", "%3A%2F%2F", "\0", "\ud800", "::", "a", "="], k=12)
        )
        assert isinstance(reveal(hide(text)), str | None)
        without_secrets(text)


def test_errors_have_no_secret_and_pickle() -> None:
    for kind in (InputError, CorpusError, StoreError):
        error = kind("https://u:C4nary@h/x?sig=C4nary: cannot be read")
        assert "C4nary" not in f"{error} {error!r} {error.args}"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_secrets_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "AZURE_STORAGE_CONNECTION_STRING")
    for number, name in enumerate(names):
        monkeypatch.setenv(name, canary(number))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{canary(10)}@proxy:3128")
    monkeypatch.setenv("HF_ENDPOINT", f"https://{canary(11)}@hub.example")
    for number in (*range(len(names)), 10, 11):
        text = f"denied for {canary(number)}, {quote(canary(number))}"
        assert not leaks([canary(number)], [without_secrets(text), str(StoreError(text))])


def test_words_numbers_and_dates_of_the_output_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true-1")
    monkeypatch.setenv("DEPLOY_TOKEN", "production")
    hide("https://somebody:secret@h/x?se=2027-01-01&X-Amz-Date=20260101T000000Z&expires=128000&sp=racwdl&k=answer")
    text = "somebody's secret answer in production on 2027-01-01: 128000, false-or-true-1, https://a.b/c?q=1"
    assert without_known_secrets(text) == text


def test_tokens_are_hidden_by_their_form() -> None:
    for token in ("hf_" + "a1" * 17, "sk-proj-" + "b2" * 12, "ghp_" + "c3" * 18, "AKIA" + "IOSFODNN7EXAMPLE"):
        assert token not in without_secrets(f"refused: {token}, as of now")
    assert "C4n4ry-abcdef" not in without_secrets("Authorization: Bearer C4n4ry-abcdef")


def test_a_pickled_place_can_be_opened_elsewhere() -> None:
    place = RemotePlace("https://u:C4nary@h/x?sig=C4nary")
    assert "C4nary" not in f"{place} {place!r} {place.entry}"
    content = pickle.dumps(place)
    nothing_left()
    with pytest.raises(CorpusError, match=f"set {VARIABLE} to the whole URL"):
        filesystem("https://REDACTED@h/x?REDACTED")
    assert pickle.loads(content) == place
    assert filesystem(str(place))[1] == "https://u:C4nary@h/x?sig=C4nary"


def test_the_files_of_a_host_share_its_user() -> None:
    hide("https://u:C4nary@h/a.jsonl")
    assert reveal("https://REDACTED@h/b/c.jsonl") == "https://u:C4nary@h/b/c.jsonl"
    assert reveal("https://REDACTED@other/a.jsonl") is None
    with pytest.raises(StoreError, match="is not kept"):
        open_storage("https://REDACTED@other/scores")


def test_values_are_hidden_at_any_depth() -> None:
    url = "https://u:p@h/x"
    assert hidden({"a": [url, {"b": (url, 1, None)}], url: 2.0}) == {
        "a": ["https://REDACTED@h/x", {"b": ("https://REDACTED@h/x", 1, None)}],
        "https://REDACTED@h/x": 2.0,
    }
