"""Masking of secrets in texts that are stored or logged. This is the only place that recognizes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

MASK = "***"

_T = TypeVar("_T")

_SECRET_WORD = r"(?:token|key|secret|password|passwd|passphrase|credentials?)"
#: Name that introduces a value on a command line, such as ``--api-key`` or ``server.password``.
_NAME = re.compile(rf"-*[\w.\-/+]*{_SECRET_WORD}", re.IGNORECASE)
#: Parameter whose value is a secret. Names such as ``sort_key`` or ``pad_token`` are hyperparameters.
_SECRET_PARAM = re.compile(
    r"(?:pass(?:word|wd|phrase)|api[_-]?key)$|(?:^|[^a-z])(?:secret|credentials?"
    r"|(?:secret|access|private|encryption|signing|storage|account)[_-]?(?:access[_-]?)?key"
    r"|(?:^|[/.])(?:[\w-]*(?:api|auth|access|bearer|refresh|hf|hub|git\w*|wandb|mlflow|slack|bot|user|session|secret)"
    r"[_-]?)?token)$",
    re.IGNORECASE,
)
_FLAG_VALUE = re.compile(
    rf"(?<!\S)(--?[\w.\-]{{0,64}}{_SECRET_WORD}(?:=|\s+))(?!-)(\"[^\"]*\"|'[^']*'|[^\s&]+)", re.IGNORECASE
)
_ASSIGNED_VALUE = re.compile(
    r"(\b[\w.\-]{0,64}(?:(?:secret|password|passwd|passphrase|(?:api|access|private|secret)[_-]?key)[\"']?\s?[=:]"
    r"|token(?:=|[\"']\s?:))\s?)(?!\s|//)(\"[^\"]*\"|'[^']*'|[^\s&,;\"')\]}]+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"\b((?:bearer|basic)\s+)([\w+/=.~\-]{6,})", re.IGNORECASE)
_URI = re.compile(r"\b([a-z][a-z0-9+.\-]{0,30}:/{1,3})([^\s\"'<>]+)", re.IGNORECASE)
#: User name and password, of which the latter contains a slash. A port is not a password.
_LOOSE_CREDENTIALS = re.compile(r"[^/@:]*:(?!\d*(?:[/?#]|$))[^@]*@")
_QUERY_SECRET = re.compile(
    r"([?&;][^=&#\s]*(?:sig|token|secret|pass|pwd|key|auth|cred|x-amz-|x-goog-)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE
)
#: Keys of widespread services, by their prefixes.
_SERVICE_KEY = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|hf_[A-Za-z0-9]{16,}|sk-[\w\-]{20,}|xox[abeprs]-[\w\-]{10,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w\-]{30,}|eyJ[\w\-]{10,}\.[\w\-]{10,}\.[\w\-]*)"
)
#: String in source code that is assigned to a name such as ``HF_TOKEN``, or follows it in a mapping.
_ASSIGNED_STRING = re.compile(
    rf"(\b[\w.\-]{{0,64}}{_SECRET_WORD}\w{{0,16}}[\"']?\]?\s{{0,8}}[:=]\s{{0,8}}[bfruBFRU]{{0,2}})(\"[^\"]+\"|'[^']+')",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----(BEGIN|END) [A-Z ]{0,30}PRIVATE KEY")
#: Cheap test for lines that may contain a secret.
_HINT = re.compile(
    rf"{_SECRET_WORD}|bearer|basic|:/|PRIVATE|passw|gh[pousr]_|glpat|hf_|sk-|xox|AKIA|ASIA|AIza|eyJ", re.IGNORECASE
)
#: Fragment that names a section of a page, or a page of an application.
_PLAIN_FRAGMENT = re.compile(r"/|[a-z_.\-]*$")


def mask_secrets(text: str) -> str:
    """Replace secrets in a text by ``***``.

    Secrets are user names and passwords in URIs, parameters of signed URLs, fragments of URLs, the value of an option
    or name that ends in token, key, secret or password, and the values of authorization headers.

    Args:
        text: Any text.
    """
    if "://" in text or ":/" in text:
        text = _URI.sub(lambda match: match[1] + _mask_location(match[2]), text)
    text = _FLAG_VALUE.sub(rf"\1{MASK}", text)
    text = _ASSIGNED_VALUE.sub(_mask_assigned, text)
    return _AUTHORIZATION.sub(rf"\1{MASK}", text)


def mask_diff(diff: bytes) -> bytes:
    """Replace secrets in the lines of a diff by ``***``, including keys of widespread services and private keys.

    The lines are masked one by one, because a search in a long text does not let other threads run.

    Args:
        diff: Diff of source files in any encoding.
    """
    masked, is_private = [], False
    for line in diff.decode(errors="surrogateescape").split("\n"):
        marker, text = line[:1], line[1:]  # The first character is no part of the file.
        private = _PRIVATE_KEY.search(text)
        is_private = private[1] == "BEGIN" if private else is_private and marker in ("+", "-", " ")
        if is_private and not private:
            text = MASK
        elif _HINT.search(text):
            text = _SERVICE_KEY.sub(MASK, _ASSIGNED_STRING.sub(rf"\1{MASK}", mask_secrets(text)))
        masked.append(marker + text)
    return "\n".join(masked).encode(errors="surrogateescape")


def mask_arguments(arguments: Iterable[str]) -> list[str]:
    """Replace secrets in the arguments of a command by ``***``.

    Args:
        arguments: The arguments, such as ``sys.argv``.
    """
    masked: list[str] = []
    is_value = False
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if is_value and not argument.startswith("--"):
            masked.append(MASK)
            is_value = False
            continue
        is_value = not separator and argument.startswith("-") and _NAME.fullmatch(argument) is not None
        is_assigned = bool(separator and value) and _NAME.fullmatch(name) is not None
        masked.append(f"{name}={MASK}" if is_assigned else mask_secrets(argument))
    return masked


def mask_values(values: Mapping[str, _T]) -> dict[str, _T | str]:
    """Replace secrets in the values of parameters or tags by ``***``.

    Args:
        values: Values by name. A text is replaced if its name is that of a secret, such as ``api_key``.
    """
    return {name: _mask_value(name, value) for name, value in values.items()}


def _mask_value(name: str, value: _T) -> _T | str:
    if not isinstance(value, str) or not value.strip("*"):  # empty, or masked by a library
        return value
    return MASK if _SECRET_PARAM.search(name) else mask_secrets(value)


def _mask_assigned(match: re.Match[str]) -> str:
    return match[0] if match[2].startswith(MASK) else f"{match[1]}{MASK}"


def _mask_location(location: str) -> str:
    """Mask the part of a URI after its scheme."""
    authority, slash, rest = location.partition("/")
    if "@" in authority:
        location = f"{MASK}@{authority.rpartition('@')[2]}{slash}{rest}"
    else:
        location = _LOOSE_CREDENTIALS.sub(f"{MASK}@", location, count=1)
    location, has_fragment, fragment = location.partition("#")
    location, has_query, query = location.partition("?")
    query = _QUERY_SECRET.sub(rf"\1{MASK}", f"{has_query}{query}")
    if has_fragment and not _PLAIN_FRAGMENT.match(fragment):
        fragment = MASK
    return f"{location}{query}{has_fragment}{fragment}"
