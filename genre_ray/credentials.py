"""Recognise credentials, to refuse them in configurations and to hide them in messages."""

import re
from typing import Any

_WORDS = frozenset({"secret", "secrets", "password", "passwd", "passphrase", "token", "credential", "credentials"})
_PAIRS = re.compile(r"(access|api|private|account|secret|sas)[_-]?keys?(?![a-z])", re.IGNORECASE)
_VALUES = re.compile(
    r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,}"  # an AWS access key id
    r"|(?<=://)[^/\s@:]*:[^/\s@]*(?=@)"  # user:password@ of a URI
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:(?<=x-amz-signature=)|(?<=x-amz-credential=)|(?<=x-amz-security-token=))[^&\s]+"  # a presigned URL
)
_ELEMENTS = re.compile(r"<(AWSAccessKeyId|SignatureProvided|StringToSign|CanonicalRequest)>.*?</\1>", re.DOTALL)
_MASK = "…"


def find_credential(settings: Any) -> str | None:
    """Return the dotted path of the first setting that looks like a credential, by its name or its value.

    A part of the path that is a credential itself is masked. Returns None if there is no credential.
    """
    return _find(settings, "", set())


def _find(settings: Any, path: str, seen: set[int]) -> str | None:
    if isinstance(settings, str):
        return path if is_credential(settings) else None
    if not isinstance(settings, dict | list | tuple) or id(settings) in seen:
        return None
    # A YAML alias can put one value in many places, even inside itself.
    seen.add(id(settings))
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        inner = f"{path}.{redacted(str(key))}" if path else redacted(str(key))
        named = isinstance(settings, dict) and names_credential(str(key)) and value is not None
        if named or is_credential(str(key)):
            return inner
        if (found := _find(value, inner, seen)) is not None:
            return found
    return None


def is_credential(text: str) -> bool:
    """Whether `text` contains something that looks like a credential."""
    return _VALUES.search(text) is not None


def redacted(text: str) -> str:
    """Return `text` with everything that looks like a credential masked.

    >>> redacted("cannot reach http://me:mine@store/bucket")
    'cannot reach http://…@store/bucket'
    """
    return _VALUES.sub(_MASK, _ELEMENTS.sub(_MASK, text))


def names_credential(key: str) -> bool:
    """Whether a setting with this name holds a credential, e.g. `password` or `secretKey`."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower())
    return not _WORDS.isdisjoint(words) or _PAIRS.search(key) is not None
