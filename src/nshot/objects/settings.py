"""Who asks a store, and where it is, as everybody's tools read it: what obstore does not read by itself."""

from __future__ import annotations

import configparser
import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nshot.errors import RequestError

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or log in with gcloud auth application-default login",
    "az": "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
}
"""What a person sets who is refused for want of credentials."""

PUBLIC = {
    "s3": "AWS_NO_SIGN_REQUEST=true",
    "gs": "GOOGLE_SKIP_SIGNATURE=true",
    "az": "AZURE_SKIP_SIGNATURE=true",
}
"""What a person sets who reads what anybody may read."""

_AWS = (
    *("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE",),
)
_GOOGLE = (
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
    *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
)
_AZURE = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
    *("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_USE_AZURE_CLI"),
    *("AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT", "AZURE_FABRIC_SESSION_TOKEN"),
)
_UNSIGNED = {
    "s3": ("AWS_SKIP_SIGNATURE", "AWS_NO_SIGN_REQUEST"),
    "gs": ("GOOGLE_SKIP_SIGNATURE",),
    "az": ("AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_ANON"),
}
METADATA = "169.254.169.254"
"""Where a machine of a cloud is asked for the credentials of its role."""

_METADATA = (METADATA, 80)


class Settings(NamedTuple):
    """What a store is opened with.

    Attributes:
        given: for obstore, beside what it reads itself.
        plain: whether it may be asked by http: whoever named such an address has decided.
        endpoint: where it is asked, if the person says so.
    """

    given: dict[str, Any]
    plain: bool = False
    endpoint: str = ""


def of(scheme: str) -> Settings:
    """The settings of a kind of store, by the environment and the files of its tools.

    Raises:
        RequestError: a setting that makes no sense.
    """
    if scheme == "s3":
        return _aws(os.environ.get("AWS_PROFILE") or None)
    return _google() if scheme == "gs" else _azure()


def forget() -> None:
    """Read everything anew the next time."""
    for each in (_aws, _google, _azure):
        each.cache_clear()


@lru_cache(maxsize=8)
def _aws(profile: str | None) -> Settings:
    given = {name for name in os.environ if name.startswith("AWS_")}
    settings: dict[str, Any] = {}
    said = _profile(profile or "default")
    if profile is not None and said is None:
        raise RequestError(
            f"AWS_PROFILE is {profile}, and ~/.aws/config and ~/.aws/credentials hold no such profile"
        )
    said = said or {}
    if not given & {"AWS_REGION", "AWS_DEFAULT_REGION"} and "region" in said:
        settings["region"] = said["region"]
    endpoint = _address("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    if not endpoint and "endpoint_url" in said:
        endpoint = settings["endpoint"] = _checked("endpoint_url of the profile", said["endpoint_url"])
    if os.environ.get("AWS_REQUEST_PAYER", "").lower() == "requester":
        settings["request_payer"] = True
    if _unsigned("s3"):
        settings["skip_signature"] = True
    elif "AWS_ACCESS_KEY_ID" in given:
        if not os.environ.get("AWS_SECRET_ACCESS_KEY"):
            raise RequestError("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not: set both")
    elif profile is not None or not given & set(_AWS):
        keys = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
        keys["aws_session_token"] = "session_token"
        found = {own: said[name] for name, own in keys.items() if name in said}
        settings |= found
        off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        if not found and not given & set(_AWS) and (off or not _answers(_METADATA)):
            settings["skip_signature"] = True  # as anybody may read a public bucket
    return Settings(settings, endpoint.startswith("http://"), endpoint)


def _address(*names: str) -> str:
    """The first of these variables that is set: where a store is asked.

    Raises:
        RequestError: it is no address.
    """
    return next((_checked(name, os.environ[name]) for name in names if os.environ.get(name)), "")


def _checked(name: str, address: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(address)
        _ = parts.port  # which is looked at now
        if parts.scheme in ("http", "https") and parts.hostname:
            return address
    raise RequestError(f"{name} is {address!r}, which is no address: write http://HOST:PORT or https://HOST")


def _profile(name: str) -> dict[str, str] | None:
    """What AWS's own files say of a profile; None where they do not name it."""
    said: dict[str, str] | None = None
    places = (
        (
            os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
            name if name == "default" else f"profile {name}",
        ),
        (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), name),
    )
    for file, section in places:
        parser = configparser.ConfigParser(interpolation=None)
        with suppress(OSError, ValueError, configparser.Error, RuntimeError):
            parser.read_string(Path(file).expanduser().read_text("utf-8"))
            if parser.has_section(section):
                said = (said or {}) | dict(parser.items(section))
    return said


@lru_cache(maxsize=1)
def _google() -> Settings:
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        named = emulator if "://" in emulator else f"http://{emulator}"
        place = _checked("STORAGE_EMULATOR_HOST", named)
        # without a token of some kind it would ask a machine of Google's for one before it writes
        return Settings(
            {"base_url": place, "credential_provider": lambda: {"token": "none", "expires_at": None}},
            True,
            place,
        )
    endpoint = _address("GOOGLE_BASE_URL")
    plain = endpoint.startswith("http://")
    if _unsigned("gs"):
        return Settings({"skip_signature": True}, plain, endpoint)
    folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    own = Path(folder, "application_default_credentials.json").expanduser()
    known = any(os.environ.get(name) for name in _GOOGLE) or own.is_file()
    if known or _answers((os.environ.get("GCE_METADATA_HOST", _METADATA[0]).partition(":")[0], 80)):
        return Settings({}, plain, endpoint)
    return Settings({"skip_signature": True}, plain, endpoint)  # as anybody may read a public bucket


@lru_cache(maxsize=1)
def _azure() -> Settings:
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        return Settings({}, True, _address("AZURITE_BLOB_STORAGE_URL"))
    settings: dict[str, Any] = _connection(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    # Azure's own command has other names for these than its libraries
    for name, other, own in (
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "account_name"),
        ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "account_key"),
    ):
        if os.environ.get(name) and not os.environ.get(other):
            settings.setdefault(own, os.environ[name])
    endpoint = settings.get("endpoint") or _address("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    known = any(os.environ.get(name) for name in _AZURE) or {"account_key", "sas_key"} & set(settings)
    if _unsigned("az") or (not known and not _answers(_METADATA)):
        settings["skip_signature"] = True  # as anybody may read a public container
    return Settings(settings, endpoint.startswith("http://"), endpoint)


def _connection(text: str) -> dict[str, str]:
    """A connection string as Azure's portal shows it: AccountName=...;AccountKey=...;EndpointSuffix=...

    Raises:
        RequestError: it is none.
    """
    if not text.strip():
        return {}
    parts = dict(part.strip().partition("=")[::2] for part in text.split(";") if part.strip())
    names = {"AccountName": "account_name", "AccountKey": "account_key", "BlobEndpoint": "endpoint"}
    names["SharedAccessSignature"] = "sas_key"
    found = {own: parts[name] for name, own in names.items() if parts.get(name)}
    if "endpoint" in found:
        found["endpoint"] = _checked("BlobEndpoint", found["endpoint"].rstrip("/"))
        found.setdefault("account_name", found["endpoint"].partition("://")[2].partition(".")[0])
    elif "account_name" in found and parts.get("EndpointSuffix"):
        kind = parts.get("DefaultEndpointsProtocol", "https")
        found["endpoint"] = f"{kind}://{found['account_name']}.blob.{parts['EndpointSuffix']}"
    if "account_name" not in found:
        raise RequestError("AZURE_STORAGE_CONNECTION_STRING names no account: copy it from the portal anew")
    return found


def _unsigned(scheme: str) -> bool:
    """Whether it is said that nobody is to be asked for credentials."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes") for name in _UNSIGNED[scheme])


def _answers(place: tuple[str, int]) -> bool:
    """Whether a machine can be asked for a role's credentials; elsewhere nobody answers, for minutes."""
    try:
        with socket.create_connection(place, timeout=1):
            return True
    except (OSError, OverflowError):
        return False
