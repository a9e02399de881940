"""Addresses of servers and databases.

Quoting a path that becomes one, and hiding the secrets that one carries.

`hide_secrets` is the one place that knows what is secret; all that is said, logged or written goes
through it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
# A shorter value of the environment is too often part of something else.
SHORTEST_SECRET = 4
# An address in a text: up to white space, a quote or a bracket, or up to the next address. A
# password may have those too: user info with a colon goes on to its @, as long as no path and
# nothing like another word's beginning is between.
_USER_INFO = r"[^\s/@:\"'<>`,;()\[\]{}]{1,100}:[^\s@,]{0,200}@"
_ADDRESS = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]{0,30}://)"
    rf"((?:(?!\S{{0,200}}://){_USER_INFO})?(?:(?![A-Za-z][A-Za-z0-9+.\-]{{0,30}}://)[^\s\"'<>`])*)"
)
_QUOTED_ADDRESS = re.compile(r"(%3A%2F%2F)((?:(?!%3A%2F%2F)[^\s\"'<>`])*)(%40)", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&;#][^=&;#?\s\"'<>]{1,100}=)([^&;#\s\"'<>`]+)")
# The same without the address, as in "Max retries exceeded with url: /api?token=x".
_LONE_QUERY_VALUE = re.compile(r"([?&][\w.\-]{1,100}=)([^&;#\s\"'<>`]+)")
_WORDS = (
    r"[\w.\-]{0,40}(?:password|passwd|passphrase|pwd|secret|token|credentials?|signature|authorization"
    r"|(?:api|access|account|private|shared|secret|auth)[_\-]?(?:access)?[_\-]?key(?:[_\-]?id)?)"
)
_NAMED_SO = re.compile(_WORDS, re.IGNORECASE)
# password=x of a DSN, password: x of YAML, password: 'x' and "password": "x" of a dictionary or of
# JSON.
_PAIR = re.compile(
    rf"(?<![\w.\-])(?P<name>{_WORDS}[\"']?\s?=\s?|[\"']{_WORDS}[\"']\s?:\s?)"
    rf"(?P<value>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\{{[^}}\n]*\}}|[^\s&;,\"')\]}}]+)",
    re.IGNORECASE,
)
# password: x without quotes: a line of YAML of that one word, or a word of letters and digits
# within a sentence.
_YAML_PAIR = re.compile(
    rf"(^[ \t]*(?:- )?{_WORDS}:[ \t]+)(?!(?:null|true|false|~|-?[\d.]+)[ "
    rf"\t]*$)([^\s\"'{{\[|>&*]\S*)(?=[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_WORD_PAIR = re.compile(
    rf"((?<![\w.\-]){_WORDS}:[ \t]?)(?=\S*\d)(?=\S*[A-Za-z])([^\s&;,\"')\]}}]{{6,}})", re.IGNORECASE
)
# `pass`, `key` and `sig` are ordinary words but in a DSN of parts between semicolons.
_DSN_PAIR = re.compile(r"(;\s?(?:pass|key|sig)\s?=\s?)([^\s;\"']+)", re.IGNORECASE)
_HEADER = re.compile(
    r"(\b(?:authorization|cookie|x-api-key|x-auth-token)[\"']?\s*[:=]\s*[\"']?)([^\"'\n,}]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\b[Bb]earer\s+)([A-Za-z0-9._~+/=\-]{8,})")
# Tokens that say by their beginning what they are: Prefect's, GitHub's, GitLab's, Hugging Face's,
# Slack's, Amazon's, OpenAI's and its like, JSON web tokens.
_TOKEN = re.compile(
    r"\b(?:(?:pn[ub]_|gh[pousr]_|github_pat_|glpat-|hf_|xox[abp]-|AKIA|ASIA|sk-(?=[\w\-]*\d)[\w\-]{6})[A-Za-z0-9_\-]{10,}"
    r"|eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*)"
)
_SECRET_VARIABLE = re.compile(
    r"(?:PASSWORD|PASSWD|_TOKEN|SECRET|SECRET_KEY|API_KEY|ACCESS_KEY|ACCESS_KEY_ID|AUTH_STRING)$",
    re.IGNORECASE,
)
_ADDRESS_VARIABLE = re.compile(r"(?:UR[IL]|PROXY|DSN|SERVER|HOST)$", re.IGNORECASE)

_remembered: set[str] = set()
# Whether `hide_in_process` was called.
is_hiding = False


def sqlite_address(path: Path, driver: str = "") -> str:
    """The address by which SQLAlchemy opens a SQLite database, whatever
    characters its path has.

    Args:
        path: of the database, absolute.
        driver: SQLAlchemy's name of it; empty means the usual one.
    """
    text = str(path)
    if needs_quoting(path):
        # SQLAlchemy takes what stands behind ? for options and knows no quoting there; SQLite's own
        # addresses do. With the driver's name, as MLflow makes a folder "file:" of an address that
        # begins with sqlite:///.
        return f"sqlite+{driver or 'pysqlite'}:///file:{quote(text)}?uri=true"
    return f"sqlite{driver and '+'}{driver}:///{text}"


def needs_quoting(path: Path) -> bool:
    """Whether an address of the path's plain text would lead elsewhere."""
    return re.search(r"[?\n\r]|:memory:", str(path)) is not None


def remember_secrets(text: str) -> None:
    """Let `hide_secrets` know of an address, or of a secret, that stands
    elsewhere than in the environment.
    """
    _remembered.update(_secrets_in(text) if "://" in text else (text, text.partition(":")[2]))


def hide_secrets(text: str) -> str:
    """A text without the secrets that its addresses carry, for everything that
    is said, logged or kept.

    What goes: the user info of addresses; the values of their queries; passwords, tokens and keys
    of DSNs, dictionaries and headers; and, wherever it stands, what is secret in this process's
    environment: passwords in its addresses (MLFLOW_TRACKING_URI, PREFECT_API_URL, proxies) and what
    its variables of such names hold.

    Args:
        text: an address, or any text with some in it.
    """
    if "://" in text:
        text = _ADDRESS.sub(_hide_in_address, text)
    if "%" in text:
        text = _QUOTED_ADDRESS.sub(rf"\1{HIDDEN}\3", text)
    for pattern in (_LONE_QUERY_VALUE, _PAIR, _YAML_PAIR, _WORD_PAIR, _DSN_PAIR, _HEADER, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, text)
    for secret in _own_secrets():
        if secret in text:
            text = _whole(secret).sub(HIDDEN, text)
    return text


def hide_in_values(value: Any) -> Any:
    """The same JSON value with the secrets of all its texts hidden, and
    texts under a name such as `api_key`.
    """
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, Mapping):
        return {
            key: _hide_all(inner) if _NAMED_SO.fullmatch(str(key)) else hide_in_values(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [hide_in_values(inner) for inner in value]
    return value


def _hide_all(value: Any) -> Any:
    """A value under a name that says that it is secret.

    No text of it, or of its list, is shown.
    """
    if isinstance(value, str):
        return HIDDEN
    return (
        [_hide_all(inner) for inner in value]
        if isinstance(value, list | tuple)
        else hide_in_values(value)
    )


def tell_apart(address: str) -> str:
    """12 hex digits that differ between two addresses which look alike once
    they are hidden; empty where none do.

    User info has no part in them, so that a password may change and none can be guessed from them.
    """
    bare = _ADDRESS.sub(lambda found: found[1] + _without_user(found[2]), address)
    if bare == hide_secrets(bare):
        return ""
    return hashlib.sha256(_PAIR.sub(r"\1", bare).encode()).hexdigest()[:12]


def hide_in_process() -> None:
    """Hide secrets in what any library logs or warns of in this process, and in
    the traceback that it dies with.

    A second call changes nothing.
    """
    global is_hiding
    if is_hiding:
        return
    is_hiding = True
    make, shown_warning = logging.getLogRecordFactory(), warnings.formatwarning

    # A factory and no filter: Prefect makes its handlers anew, and one of them sends its records to
    # a server.
    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _hide_in_record(record)
        return record

    logging.setLogRecordFactory(factory)
    warnings.formatwarning = lambda *args, **kwargs: hide_secrets(shown_warning(*args, **kwargs))
    sys.excepthook = lambda kind, error, trace: _say_traceback(error)
    threading.excepthook = lambda died: (
        _say_traceback(died.exc_value) if died.exc_value is not None else None
    )


def hidden_traceback(error: BaseException) -> str:
    """An error with its traceback, for a log or a file."""
    return hide_secrets("".join(traceback.format_exception(error))).rstrip("\n")


def may_carry_secrets(text: str) -> bool:
    """Whether it is worth the time to hide something in a long text, made of
    many.
    """
    return (
        "://" in text
        or any(name in text.lower() for name in ("password", "token", "key"))
        or any(secret in text for secret in _own_secrets())
    )


def _say_traceback(error: BaseException) -> None:
    sys.stderr.write(hidden_traceback(error) + "\n")


def _hide_in_record(record: logging.LogRecord) -> None:
    try:
        said = record.getMessage()
    except (TypeError, ValueError, KeyError):  # a mistake of its writer, which its handler reports
        return
    if (hidden := hide_secrets(said)) != said:
        record.msg, record.args = "%s", (hidden,)
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        record.exc_text = hidden_traceback(
            record.exc_info[1]
        )  # what formatters write instead of their own


def _hide_in_address(found: re.Match[str]) -> str:
    return found[1] + _QUERY_VALUE.sub(rf"\1{HIDDEN}", _without_user(found[2]))


def _without_user(rest: str) -> str:
    """What stands behind an address's ://, from the host on.

    A password may hold any character, so that all up to the last @ is taken for user and password,
    but not where a path begins before any colon.
    """
    user, at, place = rest.rpartition("@")
    if not at or re.match(r"[^:@]*/", rest):
        return rest
    # The @ may stand in a query's value instead: then what follows it is secret too.
    return HIDDEN if re.search(r"[?#][^=]*=", user) else place


def _whole(secret: str) -> re.Pattern[str]:
    """Where a secret stands.

    One that is a word, only where it stands as a word of its own.
    """
    word = re.escape(secret)
    return re.compile(
        rf"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{{2}})){word}(?!\w)" if secret.isalpha() else word
    )


def _own_secrets() -> tuple[str, ...]:
    """What is secret in this process, the longest first."""
    return _secrets_of(tuple(os.environ.items()), frozenset(_remembered))


@lru_cache(maxsize=4)
def _secrets_of(
    environment: tuple[tuple[str, str], ...], remembered: frozenset[str]
) -> tuple[str, ...]:
    """The secrets of an environment, in each of the forms in which a library
    may show them.
    """
    found = set(remembered)
    for name, value in environment:
        if "://" in value or _PAIR.search(value):
            found.update(_secrets_in(value))
        elif "@" in value and _ADDRESS_VARIABLE.search(name):
            found.update(_secrets_in(f"address://{value}"))
        elif _SECRET_VARIABLE.search(name):
            found.update((value, value.partition(":")[2]))
    shown = {form for one in found if len(one) >= SHORTEST_SECRET for form in _forms(one)}
    return tuple(
        sorted((one for one in shown if len(one) >= SHORTEST_SECRET), key=len, reverse=True)
    )


def _forms(secret: str) -> tuple[str, ...]:
    quoted, double_quoted = repr(secret)[1:-1], json.dumps(secret)[1:-1]
    return (
        secret,
        unquote(secret),
        unquote_plus(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        quoted,
        double_quoted,
    )


def _secrets_in(text: str) -> Iterator[str]:
    """The secrets of the addresses in a text.

    A word that also is the name of host, user or database is none.
    """
    yield from (found["value"].strip("\"'{}") for found in _PAIR.finditer(text))
    scheme, _, rest = text.partition("://")
    user_info, at, place = rest.rpartition("@")
    if not at or rest.startswith("/"):
        user_info, place = "", rest
    user, colon, password = user_info.partition(":")
    secret = [password if colon else user, *(value for _, value in _QUERY_VALUE.findall(rest))]
    # Whoever parses the address cuts a password at these; each piece is shown as a host, a port or
    # a path.
    pieces = [piece for one in secret for piece in (one, *re.split(r"[@/?#:;]", one))]
    public = f"{scheme}://{place.partition('?')[0]} {user if colon else ''}"
    yield from (piece for piece in pieces if piece not in public)
