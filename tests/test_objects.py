"""Object stores: the same commands and answers, and every object accounted for whatever the store does."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_stores import FaultyStore, azure_server, forget, moto_server, use, use_azure, use_google

import nshot
from nshot.cli import run
from nshot.embeddings.parts import Parts
from nshot.errors import ImageTooLarge, SourceError
from nshot.images.remarks import Remarks
from nshot.images.sources import expand
from nshot.objects import ObjectFile, Place, open_folder, settings, stores
from nshot.types import Embedded, Failure, Limits

pytest.importorskip("obstore", reason="object stores need obstore")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """A store that does what it is told to."""
    faulty = FaultyStore()
    with faulty.serving() as endpoint:
        use(monkeypatch, endpoint)
        yield faulty
    forget()


@pytest.fixture
def filled(store: FaultyStore, photos: Path) -> FaultyStore:
    """The twelve photos below photos/."""
    for path in sorted(photos.iterdir()):
        store.objects[f"photos/{path.name}"] = path.read_bytes()
    return store


def names(spec: str, **options: Any) -> list[str]:
    return [source.name for source in expand([spec], **options)]


def embed(tiny: Path, *arguments: str | Path, keep: bool = False) -> int:
    kept = [] if keep else ["--no-store"]
    return run(["embed", *map(str, arguments), "--model", str(tiny), *kept])


def vectors(path: str | Path) -> nshot.Embeddings:
    read = nshot.open(path)
    assert isinstance(read, nshot.Embeddings)
    return read


def test_a_bucket_is_listed_like_a_folder(store: FaultyStore) -> None:
    for key in ("p/b.jpg", "p/a b#c?%20.jpg", "p/ü.png", "p/.hidden.jpg", "p/__MACOSX/x.jpg", "p/clip.mp4"):
        store.objects[key] = b"x"
    store.objects |= {"p/sub/c.jpg": b"x", "p/sub/": b"", "p2/other.jpg": b"x", "p/noending": b"x"}
    remarks = Remarks()
    wanted = ["p/a b#c?%20.jpg", "p/b.jpg", "p/noending", "p/sub/c.jpg", "p/ü.png"]
    assert names("s3://bucket/p/", remarks=remarks) == [f"s3://bucket/{key}" for key in wanted]
    assert str(remarks.skipped) == "skipped 2: 1 __MACOSX, 1 video"
    assert names("s3://bucket/p") == names("s3://bucket/p/")
    assert names("s3://bucket/p/*.jpg") == ["s3://bucket/p/a b#c?%20.jpg", "s3://bucket/p/b.jpg"]
    assert names("s3://bucket/**/*.jpg")[-1] == "s3://bucket/p2/other.jpg"
    assert names("s3://bucket/p/s*/?.jpg") == ["s3://bucket/p/sub/c.jpg"]
    assert names("s3://bucket/p/b.jpg") == ["s3://bucket/p/b.jpg"]


def test_what_is_not_there_is_said(
    store: FaultyStore, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="s3://bucket/none/ holds no images"):
        names("s3://bucket/none/")
    with pytest.raises(SourceError, match="not a tar archive"):
        names("s3://bucket/none.tar")
    assert embed(tiny, "s3:///x", "-o", "x.npz") == 2
    assert "names no bucket" in capsys.readouterr().err


def test_a_bucket_gives_the_same_vectors_as_the_folder(
    tiny: Path, photos: Path, filled: FaultyStore, tmp_path: Path
) -> None:
    assert embed(tiny, photos, "-o", tmp_path / "here.npz") == 0
    assert embed(tiny, "s3://bucket/photos/", "-o", tmp_path / "there.npz") == 0
    here, there = vectors(tmp_path / "here.npz"), vectors(tmp_path / "there.npz")
    assert [Path(name).name for name in here.sources] == [Path(name).name for name in there.sources]
    assert np.array_equal(here.vectors, there.vectors)
    assert embed(tiny, "s3://bucket/photos/", "-o", "s3://bucket/vectors/", "--shard-size", "5") == 0
    assert sorted(key for key in filled.objects if key.startswith("vectors/")) == [
        "vectors/manifest.parquet",
        *(f"vectors/part-0000{number}.parquet" for number in range(3)),
    ]
    stored = vectors("s3://bucket/vectors/")
    assert stored.sources == there.sources
    assert np.array_equal(stored.vectors, there.vectors)
    assert run(["shards", "verify", "s3://bucket/vectors/"]) == 0
    assert run(["shards", "status", "s3://bucket/vectors"]) == 0
    ask = [
        "classify",
        "s3://bucket/vectors/",
        "--labels",
        "cat, dog",
        "--model",
        str(tiny),
        "--no-store",
    ]
    assert run([*ask, "-o", "s3://bucket/answers/"]) == 0
    assert "answers/part-00002.parquet" in filled.objects


def test_shards_in_a_bucket_are_the_bytes_of_shards_on_disk(
    tiny: Path, filled: FaultyStore, tmp_path: Path
) -> None:
    arguments = ["s3://bucket/photos/", "--shard-size", "5"]
    assert embed(tiny, *arguments, "-o", tmp_path / "v") == 0
    for job in ("1/2", "2/2"):
        assert embed(tiny, *arguments, "-o", "s3://bucket/v/", "--shard", job) == 0
    for path in (tmp_path / "v").iterdir():
        assert filled.objects[f"v/{path.name}"] == path.read_bytes()
    del filled.objects["v/part-00001.parquet"]
    assert embed(tiny, *arguments, "-o", "s3://bucket/v/") == 0
    assert filled.objects["v/part-00001.parquet"] == (tmp_path / "v" / "part-00001.parquet").read_bytes()


def test_an_unchanged_object_is_not_read_again(tiny: Path, filled: FaultyStore, tmp_path: Path) -> None:
    assert embed(tiny, "s3://bucket/photos/", "-o", tmp_path / "a.npz", keep=True) == 0
    read = filled.asked.total()
    assert read == 12
    assert embed(tiny, "s3://bucket/photos/", "-o", tmp_path / "b.npz", keep=True) == 0
    assert filled.asked.total() == read
    filled.objects["photos/00.jpg"] = filled.objects["photos/03.jpg"]
    assert embed(tiny, "s3://bucket/photos/", "-o", tmp_path / "c.npz", keep=True) == 0
    assert filled.asked.total() == read + 1
    changed = vectors(tmp_path / "c.npz")
    assert np.array_equal(changed.vectors[0], changed.vectors[3])


def test_archives_and_tables_are_read_where_they_are(
    tiny: Path, photos: Path, filled: FaultyStore, tmp_path: Path
) -> None:
    paths = sorted(photos.iterdir())
    plain, packed, zipped = io.BytesIO(), io.BytesIO(), io.BytesIO()
    for held, mode in ((plain, "w"), (packed, "w:gz")):
        with tarfile.open(fileobj=held, mode=mode) as archive:  # type: ignore[call-overload]
            for path in paths:
                archive.add(path, path.name)
    with zipfile.ZipFile(zipped, "w") as folder:
        for path in paths:
            folder.write(path, path.name)
    filled.objects |= {
        "a/0.tar": plain.getvalue(),
        "a/1.tar.gz": packed.getvalue(),
        "a/2.zip": zipped.getvalue(),
    }
    rows = [path.name for path in paths[:6]] + [f"s3://bucket/photos/{path.name}" for path in paths[6:]]
    filled.objects["photos/list.csv"] = ("image\n" + "\n".join(rows) + "\n").encode()
    assert embed(tiny, photos, "-o", tmp_path / "here.npz") == 0
    here = vectors(tmp_path / "here.npz")
    for number, spec in enumerate(("a/0.tar", "a/1.tar.gz", "a/2.zip", "photos/list.csv")):
        assert embed(tiny, f"s3://bucket/{spec}", "-o", tmp_path / f"{number}.npz") == 0
        assert np.array_equal(vectors(tmp_path / f"{number}.npz").vectors, here.vectors), spec
    assert (
        embed(tiny, "s3://bucket/a/*", "-o", tmp_path / "v", "--shard-size", "5") == 2
    )  # no images, by name
    assert embed(tiny, "s3://bucket/a/*.tar", "-o", tmp_path / "v") == 0
    assert vectors(tmp_path / "v").sources[0] == "s3://bucket/a/0.tar/00.jpg"


def test_every_object_is_accounted_for_whatever_the_store_does(
    tiny: Path, filled: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {
        "00.jpg": lambda before: "503" if before < 3 else None,
        "01.png": lambda before: "cut" if before < 2 else None,
        "02.webp": lambda _: "403",
        "03.jpg": lambda _: "404",
        "04.png": lambda before: "hang" if before < 1 else None,
    }
    filled.faults = {f"photos/{name}": fault for name, fault in faults.items()}
    monkeypatch.setattr(stores, "_READ_TIMEOUT", "1s")
    forget()
    assert embed(tiny, "s3://bucket/photos/", "-o", tmp_path / "v.npz") == 1
    read = vectors(tmp_path / "v.npz")
    assert len(read) == 10
    assert [(Path(each.source).name, each.type) for each in read.failures.values()] == [
        ("02.webp", "UnreadableImage"),
        ("03.jpg", "UnreadableImage"),
    ]
    assert read.failures[2].message == "the store denies access"
    assert read.failures[3].message == "no such object"


def test_a_store_that_never_answers_ends_in_a_failure(
    filled: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.faults = {
        "photos/00.jpg": lambda _: "503",
        "photos/01.png": lambda _: "hang",
        "photos/02.webp": lambda _: "cut",
    }
    monkeypatch.setattr(stores, "_READ_TIMEOUT", "1s")
    monkeypatch.setattr(stores, "_PATIENCE", 2)
    forget()
    for source in list(expand(["s3://bucket/photos/"]))[:3]:
        with pytest.raises(nshot.NshotError) as caught:
            source.read()
        assert type(caught.value).__name__ == "FetchError", source.name


def test_what_is_too_large_is_known_before_it_is_read(filled: FaultyStore) -> None:
    filled.objects["photos/large.jpg"] = bytes(10_000)
    limits = Limits(max_bytes=9_000)
    for spec in ("s3://bucket/photos/large.jpg", "s3://bucket/photos/l*"):
        (source,) = expand([spec], limits=limits)
        with pytest.raises(ImageTooLarge, match="10,000 bytes are more than the limit"):
            source.read(before_more=(2**24, lambda: None)) if source.size is None else source.read()


def test_an_object_that_changes_while_it_is_read_is_noticed(store: FaultyStore) -> None:
    store.objects["big"] = bytes(2**20)
    file = ObjectFile(Place.of("s3://bucket/big"))
    assert file.read(10) == bytes(10)
    real = store.objects["big"]
    store.objects["big"] = b"\1" + real[1:]
    file.seek(2**19)
    data = b""
    try:
        data = file.read(10)
    except OSError:
        return
    assert data == bytes(10)  # a store without conditions: the stand-in is one


def test_a_file_in_a_store_reads_from_anywhere(store: FaultyStore) -> None:
    rng = np.random.default_rng(0)
    body = rng.integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
    store.objects["big"] = body
    file = ObjectFile(Place.of("s3://bucket/big"))
    for start, length in ((0, 10), (10, 700_000), (2_999_990, 100), (5, 5), (1_000_000, 1_500_000)):
        file.seek(start)
        assert file.read(length) == body[start : start + length]
    assert file.seek(-3, io.SEEK_END) == len(body) - 3
    with pytest.raises(FileNotFoundError):
        ObjectFile(Place.of("s3://bucket/none"))


def test_of_two_that_write_a_name_at_once_the_first_stands(store: FaultyStore) -> None:
    folder = open_folder("s3://bucket/v/")
    for text in (b"first", b"second"):
        with folder.drafting("manifest.parquet", over=False) as draft:
            draft.write_bytes(text)
    assert store.objects["v/manifest.parquet"] == b"first"
    with folder.drafting("other") as draft:
        draft.write_bytes(b"x")
    assert folder.files() == {"manifest.parquet": 5, "other": 1}
    folder.remove("other")
    folder.remove("other")
    assert not folder.exists("other")


def test_a_listing_in_a_store_goes_on_where_it_was_cut_off(
    tiny: Path, filled: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.distributed.plan as module
    from nshot.distributed.run import Request, planned

    monkeypatch.setattr(module, "_PIECE", 5)
    model, request = nshot.load(tiny), Request(["s3://bucket/photos/"], shard_size=5)

    def told(count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(tmp_path / "v", request, model, told=told)
    assert planned(tmp_path / "v", request, model).images == 12
    entries = [
        entry.source
        for _, found in planned(tmp_path / "v", request, model).entries(range(3))
        for entry in found
    ]
    assert entries == names("s3://bucket/photos/")


def test_a_million_names_take_the_memory_of_a_thousand(store: FaultyStore, tmp_path: Path) -> None:
    """Fifty thousand here, a million in bench/scale.py: what grows would show."""

    def page(after: str, count: int) -> list[str]:
        first = int(after[-12:-4]) + 1 if after else 0
        return [f"photos/{number:08}.jpg" for number in range(first, min(first + count, 50_000))]

    store.names = page
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in expand(["s3://bucket/photos/"])) == 50_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert store.lists == 51


def test_settings_are_those_of_everybodys_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-north-1\n[profile lab]\nendpoint_url = http://lab:9000\n"
    )
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    assert settings._aws(None).given == {"region": "eu-north-1", "skip_signature": True}
    assert settings._aws("lab").given == {
        "endpoint": "http://lab:9000",
        "access_key_id": "k",
        "secret_access_key": "s",
    }
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    forget()
    assert settings._aws("lab").given == {  # keys of the environment come before a profile's
        "endpoint": "http://lab:9000",
        "request_payer": True,
    }
    assert settings._aws(None).given == {"region": "eu-north-1", "request_payer": True}
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "true")
    forget()
    assert settings._aws(None).given["skip_signature"] is True
    forget()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "AWS_ENDPOINT_URL is '127.0.0.1:9000', which is no address"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "the store gave no answer at http://127.0.0.1:9"),
        ("AWS_PROFILE", "typo", "AWS_PROFILE is typo, and ~/.aws/config"),
        ("AWS_SECRET_ACCESS_KEY", "", "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    filled: FaultyStore,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setattr(stores, "_PATIENCE", 1)
    monkeypatch.setenv(name, value)
    forget()
    assert embed(tiny, "s3://bucket/photos/", "-o", "x.npz") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "manifest" not in error


def test_a_url_without_its_second_slash_is_told_from_a_file(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(tiny, "s3:/bucket/photos/", "-o", "x.npz") == 2
    assert "write s3://bucket/photos/ for a store" in capsys.readouterr().err


def test_a_machine_without_a_role_says_what_to_set() -> None:
    said = "Error performing GET http://169.254.169.254/latest/meta-data/: 404 Not Found"
    for kind in (OSError, FileNotFoundError):
        failure = stores._failure(Place.of("s3://bucket/a.jpg"), kind(said))
        assert failure.kind == "denied"
        assert "AWS_ACCESS_KEY_ID" in str(failure)
        assert "AWS_NO_SIGN_REQUEST=true for what anybody may read" in str(failure)


def test_motos_s3_is_read_and_written(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_server() as endpoint:
        use(monkeypatch, endpoint)
        place = Place.of("s3://bucket/photos")
        import obstore

        for path in sorted(photos.iterdir()):
            obstore.put(place.store, f"photos/{path.name}", path)
        assert embed(tiny, "s3://bucket/photos/", "-o", "s3://bucket/v/", "--shard-size", "5") == 0
        assert embed(tiny, photos, "-o", tmp_path / "here.npz") == 0
        assert np.array_equal(vectors("s3://bucket/v/").vectors, vectors(tmp_path / "here.npz").vectors)
        assert Parts("s3://bucket/v/").missing == []
        assert run(["shards", "verify", "s3://bucket/v/"]) == 0
    forget()


def test_an_object_store_without_obstore_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None; from nshot.cli import run; "
        "sys.exit(run(['embed', 's3://bucket/x/', '-o', 'v.npz', '--model', 'sketchbook']))"
    )
    source = str(Path(nshot.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": source},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert 'pip install "nshot[cloud]"' in done.stderr


def test_embedded_and_failed_objects_have_their_urls_as_names(tiny: Path, filled: FaultyStore) -> None:
    filled.objects["photos/zz.jpg"] = b"no image"
    found = list(nshot.load(tiny).embed_images("s3://bucket/photos/"))
    assert isinstance(found[0], Embedded)
    assert found[0].source == "s3://bucket/photos/00.jpg"
    assert isinstance(found[-1], Failure)
    assert found[-1].source == "s3://bucket/photos/zz.jpg"


def test_files_of_vectors_and_answers_go_into_a_store(
    tiny: Path, photos: Path, filled: FaultyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(tiny, photos, "-o", "s3://bucket/v.npz") == 0
    assert capsys.readouterr().out == "12 vectors: s3://bucket/v.npz\n"
    (tmp_path / "v.npz").write_bytes(filled.objects["v.npz"])
    assert len(vectors(tmp_path / "v.npz")) == 12
    ask = [
        "classify",
        "s3://bucket/photos/",
        "--labels",
        "cat, dog",
        "--model",
        str(tiny),
        "--no-store",
        "-o",
    ]
    assert run([*ask, "s3://bucket/out/a.jsonl"]) == 0
    assert filled.objects["out/a.jsonl"].count(b"\n") == 12
    assert run([*ask, "s3://bucket/out/b.jsonl", "--resume"]) == 2
    filled.objects["photos/zz.jpg"] = b"no image"
    assert run([*ask, "s3://bucket/out/c.jsonl"]) == 1
    assert filled.objects["out/c.jsonl"].count(b"\n") == 13


def test_a_folder_of_a_data_set_on_the_hub_is_a_source(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub_server import hub_server
    from huggingface_hub import constants

    (photos / "notes.txt").write_text("x")
    data = tmp_path / "data"
    data.mkdir()
    photos.rename(data / "train")
    with hub_server() as server:
        server.models["datasets/lab/birds"] = {"main": data, "v1": data}
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert embed(tiny, data / "train", "-o", tmp_path / "here.npz") == 0
        for spec in ("hf://datasets/lab/birds/train/", "hf://datasets/lab/birds@v1/train"):
            assert embed(tiny, spec, "-o", tmp_path / "there.npz") == 0
            there = vectors(tmp_path / "there.npz")
            assert there.sources[0] == f"{spec.rstrip('/')}/00.jpg"
            assert np.array_equal(there.vectors, vectors(tmp_path / "here.npz").vectors)
        assert embed(tiny, "hf://datasets/lab/birds/train/", "-o", tmp_path / "v", "--shard-size", "5") == 0
        assert len(vectors(tmp_path / "v")) == 12
        with pytest.raises(SourceError, match="no such file or folder"):
            names("hf://datasets/lab/birds/none/")
        with pytest.raises(SourceError, match="cannot be listed"):
            names("hf://datasets/lab/none/")


def test_an_object_that_was_named_is_not_read_again_while_it_is_unchanged(
    tiny: Path, filled: FaultyStore, tmp_path: Path
) -> None:
    keys = sorted(filled.objects)
    rows = "\n".join(f"s3://bucket/{key}" for key in keys[:6])
    (tmp_path / "table.csv").write_text(f"image\n{rows}\n")
    beside = "\n./".join(Path(key).name for key in keys[6:8])
    filled.objects["photos/table.csv"] = f"image\n{beside}\n".encode()
    sources: list[str | Path] = [tmp_path / "table.csv", "s3://bucket/photos/table.csv"]
    sources.append(f"s3://bucket/{keys[8]}")

    own: list[str | Path] = ["--store", tmp_path / "store"]

    def asked(output: str) -> tuple[int, int]:
        filled.asked.clear()
        filled.heads = 0
        assert embed(tiny, *sources, "-o", tmp_path / output, *own, keep=True) == 0
        heads = filled.heads
        return sum(filled.asked[key] for key in keys), heads

    read, heads = asked("a.npz")
    assert read == 9
    again, more = asked("b.npz")
    assert again == 0
    assert more == heads + 9  # nothing but the question whether it changed
    assert np.array_equal(vectors(tmp_path / "a.npz").vectors, vectors(tmp_path / "b.npz").vectors)
    filled.objects[keys[2]] = filled.objects[keys[3]]
    del filled.objects[keys[4]]
    filled.asked.clear()
    assert embed(tiny, *sources, "-o", tmp_path / "c.npz", *own, keep=True) == 1
    assert filled.asked[keys[2]] == 1
    changed = vectors(tmp_path / "c.npz")
    assert np.array_equal(changed.vectors[2], changed.vectors[3])
    assert [each.source for each in changed.failures.values()] == [f"s3://bucket/{keys[4]}"]


@pytest.fixture
def by_label(store: FaultyStore, photos: Path) -> FaultyStore:
    """The twelve photos in folders of labels, in a table beside them, and in shards of webdataset."""
    rows = []
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number, path in enumerate(sorted(photos.iterdir())):
            label = ("cat", "dog")[number % 2]
            data = path.read_bytes()
            store.objects[f"set/{label}/{path.name}"] = data
            store.objects[f"flat/images/{path.name}"] = data
            rows.append(f"images\\{path.name},{label}")
            for name, content in ((path.name, data), (f"{path.stem}.cls", label.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    store.objects["flat/labels.csv"] = "\n".join(["image,label", *rows, ""]).encode()
    store.objects["shards/0.tar"] = held.getvalue()
    store.objects["parted/train/cat/0.jpg"] = data
    store.objects["parted/test/cat/0.jpg"] = data
    store.objects["parted/test/dog/0.jpg"] = data
    store.objects["parted/train/dog/0.jpg"] = data
    return store


@pytest.mark.parametrize("place", ["set/", "flat/labels.csv", "shards/", "shards/0.tar"])
def test_labelled_images_in_a_store_are_the_same_as_on_disk(
    place: str, by_label: FaultyStore, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, data in by_label.objects.items():
        path = tmp_path / "disk" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    told, found = [], []
    for root in (f"{tmp_path}/disk/", "s3://bucket/"):
        labelled = nshot.open_labelled(root + place)
        found.append([(source.name.removeprefix(root), source.labels) for source in labelled])
        capsys.readouterr()
        assert run(["evaluate", root + place, "--model", str(tiny), "--no-store", "--quiet"]) == 0
        told.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert len(found[0]) == 12
    assert told[0] == told[1]


def test_a_labelled_set_in_a_store_is_fitted_and_planned(
    by_label: FaultyStore, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny), "--no-store"]
    assert run(["fit", "s3://bucket/set/", "-o", str(tmp_path / "c.nshot"), *model]) == 0
    assert embed(tiny, "s3://bucket/set/", "--labelled", "-o", "s3://bucket/v/", "--shard-size", "5") == 0
    assert vectors("s3://bucket/v/").label.count("cat") == 6
    assert run(["evaluate", "s3://bucket/v/", *model]) == 0
    capsys.readouterr()
    assert run(["evaluate", "s3://bucket/parted/", *model]) == 0
    assert "the part 'test' of s3://bucket/parted" in capsys.readouterr().err
    for place, said in (
        ("s3://bucket/none/", "s3://bucket/none/ holds nothing"),
        ("s3://bucket/set/*.jpg", "name a folder with a folder per label"),
        ("s3://bucket/none.csv", "none.csv"),
    ):
        assert run(["evaluate", place, *model]) == 2, place
        assert said in capsys.readouterr().err


@pytest.fixture(params=["gs", "az"])
def elsewhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Stand-ins for Google's and Azure's stores: the URL of a bucket, and what is in it."""
    if request.param == "gs":
        google = FaultyStore()
        with google.serving() as endpoint:
            use_google(monkeypatch, endpoint)
            yield "gs://bucket", google.objects
    else:
        objects: dict[str, bytes] = {}
        with azure_server(objects) as endpoint:
            use_azure(monkeypatch, endpoint)
            yield "az://container", objects
    forget()


def test_google_and_azure_are_read_and_written_as_s3_is(
    elsewhere: tuple[str, dict[str, bytes]], tiny: Path, photos: Path, tmp_path: Path
) -> None:
    bucket, objects = elsewhere
    for number, path in enumerate(sorted(photos.iterdir())):
        objects[f"photos/{path.name}"] = path.read_bytes()
        objects[f"set/{('cat', 'dog')[number % 2]}/{path.name}"] = path.read_bytes()
    assert len(names(f"{bucket}/photos/")) == 12
    assert len(names(f"{bucket}/photos/*.jpg")) == 4
    assert embed(tiny, photos, "-o", tmp_path / "v", "--shard-size", "5") == 0
    assert embed(tiny, f"{bucket}/photos/", "-o", f"{bucket}/v/", "--shard-size", "5") == 0
    here, there = vectors(tmp_path / "v"), vectors(f"{bucket}/v/")
    assert [Path(name).name for name in there.sources] == [Path(name).name for name in here.sources]
    assert np.array_equal(here.vectors, there.vectors)
    assert run(["shards", "verify", f"{bucket}/v/"]) == 0
    assert not [key for key in objects if ".listing" in key]  # put away, once the plan was there
    model = ["--model", str(tiny), "--no-store"]
    assert run(["classify", f"{bucket}/v/", "--labels", "cat, dog", "-o", f"{bucket}/a/", *model]) == 0
    assert "a/part-00002.parquet" in objects
    assert run(["evaluate", f"{bucket}/set/", *model]) == 0
    place = Place.of(f"{bucket}/photos/none.jpg")
    with pytest.raises(stores.StoreFailure) as failure:
        place.head()
    assert failure.value.kind == "missing"
    data = objects["v/part-00001.parquet"]
    with ObjectFile(Place.of(f"{bucket}/v/part-00001.parquet")) as file:
        file.seek(100)
        assert file.read(50) == data[100:150]
    folder = open_folder(f"{bucket}/v")
    with folder.drafting("manifest.parquet", over=False) as draft:
        draft.write_bytes(b"another plan")
    assert objects["v/manifest.parquet"] != b"another plan"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("400 ExpiredToken", "the credentials have expired"),
        ("403 RequestTimeTooSkewed", "the clock of this machine is wrong"),
        ("403 InvalidAccessKeyId", "does not know these credentials"),
        ("403 AccessDenied", "the store denies access"),
    ],
)
def test_why_a_store_refuses_is_said(filled: FaultyStore, tiny: Path, fault: str, said: str) -> None:
    filled.faults["photos/00.jpg"] = lambda before: fault
    failed = [each for each in nshot.load(tiny).embed_images("s3://bucket/photos/") if each.vector is None]
    assert [(each.source, said in getattr(each, "message", "")) for each in failed] == [
        ("s3://bucket/photos/00.jpg", True)
    ]


def test_a_listing_that_is_cut_off_is_asked_for_again_or_said_and_never_taken_for_all(
    filled: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_PATIENCE", 2)
    forget()
    filled.cut_lists = lambda page: page == 1
    try:
        assert len(names("s3://bucket/photos/")) == 12
    except SourceError as error:
        assert "cannot be listed" in str(error)  # noqa: PT017  (either is honest)
    filled.cut_lists = lambda page: True
    with pytest.raises(SourceError, match="cannot be listed"):
        names("s3://bucket/photos/")


def test_foreign_files_beside_shards_are_named_and_shards_stay_whole(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "v"
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5") == 0
    (folder / "notes.txt").write_text("mine")
    (folder / "part-00009.parquet").write_bytes((folder / "part-00001.parquet").read_bytes())
    capsys.readouterr()
    assert run(["shards", "verify", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "part-00009.parquet: it belongs to no shard of this plan" in told
    assert "3 of 3 shards are whole" in told
    assert run(["shards", "status", str(folder)]) == 0
    assert len(vectors(folder)) == 12
    (folder / "part-00001.parquet").write_bytes((folder / "part-00000.parquet").read_bytes())
    assert run(["shards", "verify", str(folder)]) == 1
    assert "part-00001.parquet: it belongs to another plan" in capsys.readouterr().out
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5") == 0
    assert run(["shards", "verify", str(folder)]) == 1
    assert "part-00001" not in capsys.readouterr().out.replace("3 made", "")
