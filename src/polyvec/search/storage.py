"""Object stores: what LanceDB is told about one, and its errors in plain words.

Keys, region and endpoint come from where AWS's own tools take them (``AWS_*``, profiles, the
machine's role). What else a store needs stands in a file, one table a place, or is given by flag.
Nothing of it is written into an index, and no secret into a message.
"""

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from polyvec.errors import InputError, PolyvecError, StorageError

_Args = ParamSpec("_Args")
_Given = TypeVar("_Given")

VARIABLE = "POLYVEC_STORAGE"
_SECRET = ("secret_access_key", "session_token")
KEYS = (
    "endpoint",
    "region",
    "allow_http",
    "virtual_hosted_style_request",
    "access_key_id",
    *_SECRET,
    "skip_signature",
    "allow_invalid_certificates",
    "server_side_encryption",
    "sse_kms_key_id",
    "request_payer",
    "s3_express",
    "proxy_url",
    "connect_timeout",
    "timeout",
    "client_max_retries",
    "client_retry_timeout",
)
"""What may be said about a store, each with or without ``aws_`` before it."""
_BARE = ("allow_http", "allow_invalid_certificates", "proxy_url", "connect_timeout", "timeout")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_TRUE = ("1", "true", "yes", "on")


def is_object_store(uri: str) -> bool:
    """Return whether an index is in an object store, and not in a folder."""
    return "://" in uri


def check_place(uri: str) -> None:
    """Refuse a place that no index can be in.

    Raises:
        InputError: Neither a folder nor ``s3://bucket/prefix``, or a key stands in it.
    """
    scheme, found, rest = uri.partition("://")
    if not found:
        if re.match(r"(s3|gs|az|https?):", uri):
            raise InputError(f"--index is {uri!r}; write s3://bucket/prefix, with two slashes.")
        return
    if "@" in rest.split("/", 1)[0]:
        raise InputError(
            f"--index names a key before the bucket ({scheme}://...@...). Keys are read from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; write s3://bucket/prefix."
        )
    if scheme != "s3" or not rest.strip("/"):
        raise InputError(f"--index is {uri!r}; allowed: a folder, or s3://bucket/prefix.")


def stated_options(flags: Iterable[str]) -> dict[str, str]:
    """Return the options of ``--storage-option KEY=VALUE`` flags.

    Raises:
        InputError: No ``=``, an unknown key, or a secret: other users of a machine see flags.
    """
    stated = {}
    for flag in flags:
        key, found, value = flag.partition("=")
        name = _known_key(key.strip(), "--storage-option")
        if name in _SECRET:
            raise InputError(
                f"--storage-option {name} is a secret, and other users of this machine can see "
                f"flags. Set AWS_{name.upper()}, or write it into {config_file()}."
            )
        if not found or not value:
            raise InputError(f"--storage-option is {flag!r}; write KEY=VALUE.")
        stated[name] = value
    return stated


def storage_options(uri: str, stated: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what LanceDB is told about a place: the file's table, then what is stated.

    Args:
        uri: The index.
        stated: Options that win over the file's, by the names of :data:`KEYS`.

    Raises:
        InputError: The place is no place, the file cannot be read, or plain http was not allowed.
    """
    check_place(uri)
    if not is_object_store(uri):
        if stated:
            raise InputError(f"--storage-option is for s3://bucket/prefix; the index is {uri}.")
        return {}
    options = _configured(uri)
    options |= {_known_key(key, "storage_options"): str(v) for key, v in (stated or {}).items()}
    _check_http(uri, options)
    return {(key if key in _BARE else _lance_key(key)): value for key, value in options.items()}


def config_file() -> Path:
    """Return where stores are described: ``$POLYVEC_STORAGE``, else in the user's settings."""
    stated = os.environ.get(VARIABLE)
    if stated:
        return Path(stated).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or str(Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "polyvec" / "storage.toml"


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn what LanceDB raises of a place into one plain sentence without secrets.

    Raises:
        StorageError: The store refused, is not there or cannot be reached; a folder cannot be
            written, its disk is full, or files of the index are missing or broken.
    """
    try:
        yield
    except PolyvecError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        if is_object_store(uri):
            raise StorageError(_explained(uri, str(error))) from None
        if not (isinstance(error, OSError) or re.search(_LANCE, str(error))):
            raise
        raise StorageError(_explained_folder(uri, str(error))) from error


def reached(method: Callable[_Args, _Given]) -> Callable[_Args, _Given]:
    """Have :func:`reaching` around a method of what has a ``uri``."""

    @wraps(method)
    def asked(*given: _Args.args, **named: _Args.kwargs) -> _Given:
        with reaching(given[0].uri):  # type: ignore[attr-defined]  # the object itself
            return method(*given, **named)

    return asked


def _known_key(key: str, where: str) -> str:
    name = key.lower().removeprefix("aws_").replace("endpoint_url", "endpoint")
    if name not in KEYS:
        near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.0)
        raise InputError(
            f"{where} has an unknown key {key!r}; did you mean {near[0]!r}? "
            f"Known: {', '.join(KEYS)}."
        )
    return name


def _lance_key(key: str) -> str:
    return key if key.startswith("client_") else f"aws_{key}"


def _configured(uri: str) -> dict[str, str]:
    """Return the options of the file's table for this place: the longest that it begins with."""
    file = config_file()
    if not file.is_file():
        return {}
    tables = _read_tables(file)
    place = uri.rstrip("/") + "/"
    fitting = [name for name in tables if place.startswith(name.rstrip("/") + "/")]
    if not fitting:
        return {}
    table = tables[max(fitting, key=len)]
    return {_known_key(key, str(file)): _text(value) for key, value in table.items()}


def _read_tables(file: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The file of stores {file} cannot be read: {error}.") from error
    for name, table in tables.items():
        if not name.startswith("s3://") or not isinstance(table, dict):
            raise InputError(
                f"{file} has {name!r}; it holds one table a place, e.g. "
                '["s3://bucket"] and under it endpoint = "https://minio.example:9000".'
            )
    return tables


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_http(uri: str, options: Mapping[str, str]) -> None:
    """Refuse plain http where nobody asked for it: documents would cross the network unhidden."""
    endpoint = options.get("endpoint") or next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    allowed = options.get("allow_http") or os.environ.get("AWS_ALLOW_HTTP", "")
    if endpoint.lower().startswith("http://") and allowed.lower() not in _TRUE:
        raise InputError(
            f"The endpoint of {uri} is plain http ({endpoint}): documents and signatures would "
            "cross the network unencrypted. Use https, or allow it: --storage-option "
            "allow_http=true, or AWS_ALLOW_HTTP=true."
        )


_CAUSES = (
    (
        r"NoSuchBucket",
        "the bucket does not exist there. Check its name and the endpoint (AWS_ENDPOINT_URL, or "
        "--storage-option endpoint=URL), or make the bucket; polyvec makes none.",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|AuthFailure",
        "the store does not know this key, or the secret does not belong to it. Check "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE).",
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|InvalidToken",
        "the session's token is no longer valid. Sign in again and set AWS_SESSION_TOKEN anew.",
    ),
    (
        r"credentials|CredentialsNotLoaded|NoCredentials|FailedToLoadToken",
        "no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE.",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|status: 301",
        "the bucket is in another region. Set AWS_REGION to the bucket's.",
    ),
    (
        r"AccessDenied|status: 40[13]",
        "access was refused. The key needs s3:ListBucket on the bucket, and s3:GetObject, "
        "s3:PutObject and s3:DeleteObject under the prefix (searching: List and Get).",
    ),
    (
        r"NotImplemented|status: 501",
        "the store lacks something that is needed. It must support If-None-Match on PUT: AWS S3, "
        "MinIO and Ceph do in their newer versions.",
    ),
    (
        r"dns error|ConnectError|kind: Connect|Connection refused|timed out|[Tt]imeout|kind: Http|"
        r"error sending request|BadScheme",
        "it cannot be reached. Check the network and the endpoint (AWS_ENDPOINT_URL, or "
        "--storage-option endpoint=URL; without one it is AWS's own for AWS_REGION).",
    ),
)


def _explained(uri: str, said: str) -> str:
    for pattern, meaning in _CAUSES:
        found = re.search(pattern, said)
        if found:
            return f"The index {uri}: {meaning} [{found[0]}]"
    return f"The index {uri} failed: {without_secrets(said)[:600]}"


_LANCE = r"(?i)lance ?error|Table '.*' was not found"
"""What errors of LanceDB's own look like, whose types are Python's."""
_FOLDER_CAUSES = (
    (
        r"No space left|os error 28\b|Disk quota|File too large",
        "there is no room on its disk. Make some and run the same command again: what is done is "
        "kept.",
    ),
    (
        r"Permission denied|Read-only file system|os error (?:13|30)\b|Not a directory|File exists",
        "the folder cannot be used. It must be one that you may write to index, and read to "
        "search; --index or POLYVEC_INDEXES name another.",
    ),
    (
        r"Not found|not found|No such file",
        "files of it are missing. Delete the folder, and index anew: polyvec index FOLDER.",
    ),
)


def _explained_folder(uri: str, said: str) -> str:
    for pattern, meaning in _FOLDER_CAUSES:
        found = re.search(pattern, said)
        if found:
            return f"The index {uri}: {meaning} [{found[0]}]"
    said = said.split(", /rustc/")[0]
    return (
        f"The index {uri} cannot be read or written: {said[:300]}. If files in it were changed, "
        "delete the folder, and index anew: polyvec index FOLDER."
    )


def without_secrets(text: str) -> str:
    """Return a text without the keys of the environment and without signatures."""
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
    for name in names:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, f"<{name}>")
    pattern = r"(?i)((?:Signature|Credential|X-Amz-[\w-]+|AWSAccessKeyId)\W{1,4})[\w%/+=.-]+"
    return re.sub(pattern, r"\1<hidden>", text)
