"""Who asks a store, and where, by the variables and files of everybody's tools, as the store sees it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import FaultyStore, azure_server, forget, moto_server

from nshot.cli import run
from nshot.errors import RequestError
from nshot.images.sources import expand
from nshot.objects import Place, settings

pytest.importorskip("obstore", reason="object stores need obstore")

KEY = base64.b64encode(b"a key of the account").decode()


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine on which nothing is set, and which no cloud gives a role."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZUR", "STORAGE_EMULATOR", "GCE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings, "_answers", lambda _: False)
    forget()
    yield
    forget()


@pytest.fixture
def store() -> FaultyStore:
    faulty = FaultyStore()
    faulty.objects["photos/a.jpg"] = b"a"
    return faulty


def listed(url: str) -> list[str]:
    forget()
    return [source.name for source in expand([url])]


def last(store: FaultyStore) -> dict[str, str]:
    """The headers of the last request, by names in small letters."""
    return {name.lower(): value for name, value in store.seen[-1].items()}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "profile"])
def test_the_endpoint_of_s3_is_read_where_awss_tools_read_it(
    name: str, store: FaultyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with store.serving() as endpoint:
        if name == "profile":
            (tmp_path / ".aws").mkdir()
            (tmp_path / ".aws" / "config").write_text(f"[profile lab]\nendpoint_url = {endpoint}\n")
            monkeypatch.setenv("AWS_PROFILE", "lab")
        else:
            monkeypatch.setenv(name, endpoint)
        assert listed("s3://bucket/photos/") == ["s3://bucket/photos/a.jpg"]
        assert "authorization" not in last(store)  # nobody is known, as for a public bucket


def test_the_endpoint_for_s3_alone_goes_before_the_one_for_all(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.serving() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        assert listed("s3://bucket/photos/") == ["s3://bucket/photos/a.jpg"]


def test_keys_of_s3_sign_requests_and_a_token_goes_along(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with store.serving() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "s"), ("SESSION_TOKEN", "t")):
            monkeypatch.setenv(f"AWS_{name}", value)
        listed("s3://bucket/photos/")
        assert "Credential=me/" in last(store)["authorization"]
        assert last(store)["x-amz-security-token"] == "t"
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        listed("s3://bucket/photos/")
        assert "authorization" not in last(store)
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "NO_SIGN_REQUEST"):
            monkeypatch.delenv(f"AWS_{name}")
        (tmp_path / "keys").write_text(
            "[default]\naws_access_key_id = one\naws_secret_access_key = s\n"
            "[lab]\naws_access_key_id = two\naws_secret_access_key = s\naws_session_token = u\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
        listed("s3://bucket/photos/")
        assert "Credential=one/" in last(store)["authorization"]
        monkeypatch.setenv("AWS_PROFILE", "lab")
        monkeypatch.setenv("AWS_REGION", "eu-north-1")
        listed("s3://bucket/photos/")
        assert "Credential=two/" in last(store)["authorization"]
        assert "/eu-north-1/s3/" in last(store)["authorization"]
        assert last(store)["x-amz-security-token"] == "u"


def test_who_pays_for_requests_is_said_with_each_of_them(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.serving() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
        (source,) = expand(["s3://bucket/photos/"])
        assert last(store)["x-amz-request-payer"] == "requester"
        assert source.read() == b"a"
        assert last(store)["x-amz-request-payer"] == "requester"
        assert Place.of("s3://bucket/photos/a.jpg").head().size == 1
        assert last(store)["x-amz-request-payer"] == "requester"


def test_a_public_bucket_of_motos_is_read_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    with moto_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        forget()
        place = Place.of("s3://bucket/public/a.jpg")
        obstore.put(place.store, place.key, b"a")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert listed("s3://bucket/public/") == ["s3://bucket/public/a.jpg"]


def test_who_is_refused_for_want_of_credentials_is_told_which(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults["photos/a.jpg"] = lambda _: "403"
    with store.serving() as endpoint:
        for scheme, name, said in (
            ("s3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"),
            ("gs", "GOOGLE_BASE_URL", "GOOGLE_APPLICATION_CREDENTIALS"),
        ):
            monkeypatch.setenv(name, endpoint)
            (source,) = expand([f"{scheme}://bucket/photos/"])
            with pytest.raises(Exception, match=f"denies access without credentials: set {said}"):
                source.read()


def test_a_public_bucket_of_googles_is_read_without_a_login(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.serving() as endpoint:
        monkeypatch.setenv("GOOGLE_BASE_URL", endpoint)
        assert listed("gs://bucket/photos/") == ["gs://bucket/photos/a.jpg"]
        assert "authorization" not in last(store)


def test_googles_file_of_credentials_is_read(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with store.serving() as endpoint:
        own = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
        (tmp_path / "key.json").write_text(json.dumps(own | {"private_key_id": ""}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        monkeypatch.setenv("GOOGLE_BASE_URL", endpoint)
        assert listed("gs://bucket/photos/") == ["gs://bucket/photos/a.jpg"]
        assert not settings.of("gs").given.get("skip_signature")


def test_a_connection_string_of_azures_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with azure_server({"photos/a.jpg": b"a"}) as endpoint:
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};"
            f"BlobEndpoint={endpoint}/devstoreaccount1;",
        )
        assert listed("az://container/photos/") == ["az://container/photos/a.jpg"]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "nonsense")
    with pytest.raises(RequestError, match="names no account"):
        listed("az://container/photos/")


def test_a_connection_string_names_the_usual_place_by_its_parts() -> None:
    usual = settings._connection("AccountName=a;AccountKey=b==;EndpointSuffix=core.windows.net")
    assert usual == {
        "account_name": "a",
        "account_key": "b==",
        "endpoint": "https://a.blob.core.windows.net",
    }
    shared = settings._connection(
        "BlobEndpoint=https://a.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D"
    )
    assert shared == {
        "account_name": "a",
        "endpoint": "https://a.blob.core.windows.net",
        "sas_key": "sv=1&sig=x%3D",
    }


@pytest.mark.parametrize("names", [("ACCOUNT_NAME", "ACCOUNT_KEY"), ("ACCOUNT", "KEY")])
def test_azures_keys_are_read_under_both_of_their_names(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with azure_server({"photos/a.jpg": b"a"}) as endpoint:
        monkeypatch.setenv(f"AZURE_STORAGE_{names[0]}", "devstoreaccount1")
        monkeypatch.setenv(f"AZURE_STORAGE_{names[1]}", KEY)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{endpoint}/devstoreaccount1")
        assert listed("az://container/photos/") == ["az://container/photos/a.jpg"]


def test_a_public_container_of_azures_is_read_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with azure_server({"photos/a.jpg": b"a"}, signed=False) as endpoint:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{endpoint}/devstoreaccount1")
        assert listed("az://container/photos/") == ["az://container/photos/a.jpg"]


def test_a_container_without_an_account_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["embed", "az://container/photos/", "-o", "x.npz", "--model", "sketchbook"]) == 2
    assert "account" in capsys.readouterr().err.lower()
