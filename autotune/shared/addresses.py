"""Addresses of storages: what of a URL may be shown, and texts without what may not.

A password may hold any character, so what may be shown is told by a narrow rule: scheme, host, port and path, where
they are told apart without doubt; anything else is left out.
"""

from __future__ import annotations

import itertools
import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_AUTHORITY = re.compile(r"(\w[\w.\-]*|\[[0-9A-Fa-f:.%]+\]|)(:\d{1,5})?", re.ASCII)
_PATH = re.compile(r"[\w./~+\-]*")
_LEFT_OUT = "..."
_IN_TEXT = re.compile(r"(?<![\w+.\-])[A-Za-z][A-Za-z0-9+.\-]*://(?:[^\n]*@)?[^\s'\"<>]*")  # to the last @ of a line
_SEPARATOR = re.compile("[@:/?#]")
_NAMES_SECRET = re.compile("(?i)pass|pwd|secret|token|key|auth|cred")
_PAIR = re.compile(r"(?i)\b(\w*(?:password|passwd|pwd|secret|token)['\"]?\s*[=:]\s*)([^\s,;&)]+)")

_secrets: set[str] = set()


_TELLING = 3  # characters of a piece of a secret that would tell something
_CUTS = 30  # more separators than that no password has
_HARMLESS = 5  # characters of values such as a number of seconds


def shown(url: str) -> str:
    """A URL without user, password and values of query parameters; only its scheme where these cannot be told apart."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url if _PATH.fullmatch(url) else _LEFT_OUT
    if not _SCHEME.fullmatch(scheme):
        return _LEFT_OUT
    place, end, more = _split(rest)
    place = place.rpartition("@")[2]
    authority, slash, path = place.partition("/")
    if "@" in more or not _AUTHORITY.fullmatch(authority) or not _PATH.fullmatch(path):
        return f"{scheme}://{_LEFT_OUT}"
    return f"{scheme}://{authority}{slash}{path}{end and end + _LEFT_OUT}"


def remember(url: str) -> None:
    """Leave the secrets of a URL out of every text that is `hidden` from now on."""
    _, mark, rest = url.partition("://")
    if not mark:
        return
    place, _, more = _split(rest)
    for text in (place, rest) if "@" in more else (place,):
        remember_secret(text.rpartition("@")[0].partition(":")[2])
    for pair in re.split("[&;?#]", more):
        name, _, value = pair.partition("=")
        if len(value) > _HARMLESS or _NAMES_SECRET.search(name):
            remember_secret(value)


def remember_secret(secret: str) -> None:
    """Leave a password or token out, too, however it is quoted."""
    forms = {secret, unquote(secret), unquote_plus(secret), quote(secret, safe=""), quote_plus(secret)} - {""}
    _secrets.update(forms)
    for form in forms:  # what is reported of a URL that was read wrongly are pieces of it
        cuts = [0, *(found.end() for found in _SEPARATOR.finditer(form)), len(form) + 1][:_CUTS]
        pieces = (form[a : b - 1] for a, b in itertools.combinations(cuts, 2))
        _secrets.update(piece for piece in pieces if len(piece) >= _TELLING)


def hidden(text: str) -> str:
    """A text without the secrets of the URLs that were opened, and without those of other URLs in it."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _IN_TEXT.sub(lambda found: _trimmed(found[0]), text)
    return _PAIR.sub(r"\1***", text)


def _trimmed(url: str) -> str:
    """`shown` of a URL in a sentence, whose last sign may be of the sentence."""
    bare = url.rstrip(".,:;)]}")
    return shown(bare) + url[len(bare) :]


def _split(rest: str) -> tuple[str, str, str]:
    """What stands before the query or fragment, the sign that begins it, and the query or fragment."""
    found = re.search("[?#]", rest)
    return (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])
