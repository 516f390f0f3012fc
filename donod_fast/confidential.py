"""Secrets of URLs and of the environment: kept in memory and in the environment, replaced by a mark everywhere else.

User, password, signature and token of a URL are replaced by :data:`MARK` where the URL enters the program
(:func:`hide`), and put back where a file system is opened (:func:`reveal`). So manifests, plans, options, locks and
messages have only the marked URL. It is also what tells one input from another: two URLs that differ only in their
secrets are one input.

What libraries say is cleaned by :func:`without_secrets`, where messages are made: in the constructor of
:class:`donod_fast.errors.DonodError` and in the streams of the command line.

A URL that was hidden in an earlier process can be opened again if the user gives the whole URL, as an argument or in a
variable whose name begins with :data:`VARIABLE`. Child processes inherit these variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, quote_plus, unquote

MARK = "REDACTED"
"""What stands in the place of a secret."""

VARIABLE = "DONOD_FAST_URL"
"""Beginning of the names of variables that hold whole URLs, separated by white space."""

# Patterns that most commands never use are texts: the module `re` compiles them at their first use.
_START = (
    r"(?i)(?<![A-Za-z0-9+.\-])([A-Za-z][A-Za-z0-9+.\-]*)"
    r"(:(?://+|\\/\\/)|(?:%(?:25)*3A)(?:%(?:25)*2F){2}|(?<=http):/|(?<=https):/)"
)
_START_SAID = _START + r"|(?<![A-Za-z0-9+.\-])([A-Za-z][A-Za-z0-9+.\-]+)(:/)(?!/)"
"""In messages: a URL that was taken for a path has one slash."""

_BODY = (
    r"[^\s\"<>`]*(?:(?:[ \t][^\s\"<>`]*){1,8}?"
    r"[?#&;][\w.\-]*(?:token|sig|signature|secret|passw\w*|credential|key)=[^\s\"<>`]*)?"
)
"""What follows the scheme. White space ends it, unless a parameter that names a secret comes after it."""

_TAIL = r"[')\]}.,:;!]*$"  # punctuation after a URL in a sentence
_AUTHORITY = r"[^/?#\\]*"
_PLAIN = r"[\w.\-/]{0,80}"

_WEB = ("http", "https")
"""Schemes where ``?`` begins a query. Elsewhere it may be a wildcard."""

_CONTAINER = ("abfs", "abfss", "az", "wasb", "wasbs")
"""Schemes of Azure, where the name before ``@`` is that of a container."""

_PUBLIC = frozenset(
    {
        *("alt", "branch", "dl", "download", "file", "filename", "format", "generation", "limit", "offset", "page"),
        *("path", "raw", "ref", "rev", "revision", "split", "version", "versionid"),
    }
)
"""Parameters of a query that are kept. A new kind of signature has a new name, so all others are hidden."""

_TOKENS = (
    r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|"
    r"github_pat_\w{20,}|glpat-[\w\-]{16,}|xox[abprs]-[\w\-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|"
    r"eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*)"
    r"|(?<=Bearer )[\w.\-~+/=]{8,}|(?<=Basic )[\w+/=]{8,}|(?<=AccountKey=)[\w+/=]{8,}"
)
"""Tokens that can be told by their form."""

_SECRET_NAMES = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSW|_KEY$|APIKEY|CREDENTIAL|CONNECTION_STRING|_SAS$|_AUTH$|_PAT$", re.IGNORECASE
)
"""Variables of the environment that hold a secret."""

_LONGEST = 16 << 10
"""Longest URL that is remembered, in characters: a variable of the environment must not grow too long for a child."""

_SHORTEST = 8
_TELLING = r"(?=.*[A-Za-z])(?=.*[0-9])|.*[a-z].*[A-Z]"
_TIME = r"[0-9TZ:.+\-]*|AWS4-HMAC-SHA256"
"""Outside URLs a secret is hidden only if it can be told from words, numbers and dates, which output is full of."""


class _Url(NamedTuple):
    """A URL cut into what may be shown and what may not."""

    scheme: str  # with the separator
    user: str  # without "@", "" if there is none
    rest: str  # host and path
    query: str  # with "?"
    fragment: str  # with "#"


def _cut(scheme: str, separator: str, body: str) -> _Url:
    authority = re.compile(_AUTHORITY).match(body)
    assert authority is not None
    end = authority.end()
    at, width = body.rfind("@", 0, end), 1
    if at < 0:
        colon, port = authority[0].rfind(":"), authority[0].rpartition(":")[2]
        later = body.find("@", end)
        if colon >= 0 and later >= 0 and not port.isdigit():
            # A password with "/", "?" or "#" that nobody encoded.
            host = re.compile(_AUTHORITY).match(body, later)
            at = body.rfind("@", later, host.end() if host else None)
        elif (encoded := authority[0].lower().rfind("%40")) >= 0:
            at, width = encoded, 3
    user, rest = ("", body) if at < 0 else (body[:at], body[at + width :])
    rest, sharp, fragment = rest.partition("#")
    rest, question, query = rest.partition("?")
    return _Url(scheme + separator, user, rest, question + query, sharp + fragment)


def _marked(url: _Url) -> str:
    scheme = url.scheme.partition(":")[0].lower()
    user, rest, fragment = url.user, url.rest, url.fragment
    if user and not (scheme in _CONTAINER and ":" not in unquote(user)):
        user = MARK
    if scheme in _WEB:
        rest = re.sub(r";[^/;]*", f";{MARK}", rest)
        fragment = f"#{MARK}" if len(fragment) > 1 else fragment
    elif "=" in fragment:
        fragment = f"#{MARK}"
    return f"{url.scheme}{user}{'@' if user else ''}{rest}{_marked_query(scheme, url.query)}{fragment}"


def _marked_query(scheme: str, query: str) -> str:
    """The query with its public parameters; one mark stands for all others, whatever their names."""
    if len(query) < 2:
        return query
    kept: list[str] = []
    hidden = False
    for part in re.split("[&;]", query[1:]):
        name, equals, value = part.partition("=")
        if _is_public(scheme, name, value) if equals else _is_public_word(scheme, part):
            kept.append(part)
        else:
            hidden = True
    return "?" + "&".join([*kept, *([MARK] if hidden else [])])


def _is_public(scheme: str, name: str, value: str) -> bool:
    if scheme not in _WEB and "/" in name:
        return True  # a folder such as day=1 after a wildcard
    return name.lower() in _PUBLIC and re.compile(_PLAIN).fullmatch(value) is not None


def _is_public_word(scheme: str, part: str) -> bool:
    if scheme in _WEB:
        return not part or part.lower() in _PUBLIC
    return part != MARK and not re.fullmatch(r"[\w+/%\-]{20,}", part)


def _pieces(text: str, start_of_url: str = _START) -> Iterator[str | _Url]:
    """The text cut into its URLs and what is between them."""
    done = 0
    starts = list(re.finditer(start_of_url, text))
    for number, start in enumerate(starts):
        if start.start() < done:
            continue
        yield text[done : start.start()]
        stop = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        found = re.compile(_BODY).match(text, start.end(), stop)
        assert found is not None
        scheme, separator = (one for one in start.groups() if one is not None)
        body = found[0]
        if text.startswith("::", stop - 2) and body.endswith("::"):
            body = body[:-2]  # a chain of URLs
        body = body[: len(body) - len(re.compile(_TAIL).search(body)[0])]  # type: ignore[index]
        done = start.end() + len(body)
        if separator.startswith("%"):  # encoded as a whole, as in a parameter of another URL
            for _ in range(1 + separator[: separator.upper().index("3A")].count("25")):
                body = unquote(body)
            separator = "://"
        yield _cut(scheme, separator.replace("\\", ""), body)
    yield text[done:]


def _in_form(text: str) -> str:
    return "".join(piece if isinstance(piece, str) else _marked(piece) for piece in _pieces(text, _START_SAID))


def hide(text: str) -> str:
    """Replace the secrets of all URLs in a text, and remember them for :func:`reveal`.

    A URL without secrets, and one that is hidden already, stays as it is.
    """
    if ":" not in text and "%3" not in text:
        return text
    shown = []
    for piece in _pieces(text):
        if isinstance(piece, str):
            shown.append(piece)
            continue
        marked = _marked(piece)
        _remember(marked, _whole(piece))
        shown.append(marked)
    return "".join(shown)


def _remember(marked: str, whole: str) -> None:
    if marked == whole or MARK in whole or len(whole) > _LONGEST or reveal(marked) == whole:
        return
    with suppress(ValueError):  # the environment takes neither NUL nor half of a surrogate pair
        os.environ[_own_variable(marked)] = whole


def _own_variable(marked: str) -> str:
    import hashlib  # it takes long, and most commands need it later or not at all

    return f"{VARIABLE}_{hashlib.sha256(marked.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _whole(url: _Url) -> str:
    return f"{url.scheme}{url.user}{'@' if url.user else ''}{url.rest}{url.query}{url.fragment}"


def hidden(value: Any) -> Any:
    """JSON values with :func:`hide` done to each text."""
    match value:
        case str():
            return hide(value)
        case Mapping():
            return {hidden(key): hidden(one) for key, one in value.items()}
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(map(hidden, value))
    return value


def reveal(url: str) -> str | None:
    """The whole URL of a hidden one; a URL without a mark stays as it is. None if its secrets are not known.

    The secrets of another URL of the same host are used if this one was never given, so that the files of a folder
    need not be named one by one.
    """
    if MARK not in url:
        return url
    found = []
    for piece in _pieces(url):
        whole = piece if isinstance(piece, str) else _revealed(piece)
        if whole is None:
            return None
        found.append(whole)
    return "".join(found)


def _revealed(url: _Url) -> str | None:
    marked = _whole(url)
    if MARK not in marked:
        return marked
    exact = os.environ.get(_own_variable(marked))
    if exact is not None:
        return exact
    user, query, place = url.user, url.query, (url.scheme, _host(url))
    for text in _known_texts():
        for other in _pieces(text):
            if isinstance(other, str) or (other.scheme, _host(other)) != place:
                continue
            if _marked(other) == marked:
                return _whole(other)
            if user == MARK and other.user:
                user = other.user
            if MARK in query and _marked_query(url.scheme.partition(":")[0].lower(), other.query) == url.query:
                query = other.query
    whole = _whole(url._replace(user=user, query=query))
    return None if MARK in whole else whole


def _host(url: _Url) -> str:
    return re.split("[/?#]", url.rest, maxsplit=1)[0].lower()


def _known_texts() -> Iterator[str]:
    """Whole URLs in the environment."""
    for name in sorted(os.environ):
        if name.startswith(VARIABLE):
            yield from os.environ[name].split()


def known_urls() -> dict[str, str]:
    """The variables that hold whole URLs, for a process that does not inherit the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLE)}


def without_secrets(text: str) -> str:
    """A text without the secrets of URLs, without known tokens, and without secrets of the environment."""
    return re.sub(_TOKENS, MARK, without_known_secrets(_in_form(text)))


def without_known_secrets(text: str) -> str:
    """A text without the secrets that this process knows. Other URLs stay as they are, since they may be data."""
    pattern = _known_secrets()
    return text if pattern is None else pattern.sub(MARK, text)


class _Known:
    """The secrets of one state of the environment, since each line of output asks for them."""

    state: ClassVar[dict[Any, Any] | None] = None
    pattern: ClassVar[re.Pattern[str] | None] = None


def _known_secrets() -> re.Pattern[str] | None:
    """Secrets of the environment and of hidden URLs, in all spellings, longest first."""
    state = getattr(os.environ, "_data", None) or dict(os.environ)
    if state == _Known.state:
        return _Known.pattern
    found: set[str] = set()
    for name, value in list(os.environ.items()):
        if name.startswith(VARIABLE):
            found.update(one for text in value.split() for one in _secrets_of(text))
        elif _SECRET_NAMES.search(name) and len(value) >= 8 and not value.startswith(("/", "~")):
            found.update(_spellings(value))
        elif "://" in value:  # a proxy or an endpoint
            found.update(_secrets_of(value))
    found.discard(MARK)
    longest_first = sorted(found, key=lambda secret: (-len(secret), secret))
    _Known.pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None
    _Known.state = dict(state)
    return _Known.pattern


def _secrets_of(text: str) -> Iterator[str]:
    import base64

    for url in _pieces(text):
        if isinstance(url, str):
            continue
        scheme = url.scheme.partition(":")[0].lower()
        if url.user and url.user != MARK and not (scheme in _CONTAINER and ":" not in unquote(url.user)):
            if len(url.user) >= _SHORTEST:
                yield url.user + "@"
                yield base64.b64encode(unquote(url.user).encode()).decode()
            yield from _spellings(url.user)
            for part in url.user.split(":", 1):
                yield from _spellings(part)
        for part in re.split("[&;?#]", url.query + url.fragment):
            name, equals, value = part.partition("=")
            if equals and not _is_public(scheme, name, value):
                yield from _spellings(value)
            elif not equals and part and not _is_public_word(scheme, part):
                yield from _spellings(part)


def _spellings(secret: str) -> Iterator[str]:
    plain = unquote(secret)
    for one in (secret, plain, quote(plain), quote(plain, safe=""), quote_plus(plain), plain.replace("+", " ")):
        if len(one) >= _SHORTEST and re.compile(_TELLING).match(one) and not re.compile(_TIME).fullmatch(one):
            yield one


__all__ = ["MARK", "VARIABLE", "hidden", "hide", "known_urls", "reveal", "without_known_secrets", "without_secrets"]
