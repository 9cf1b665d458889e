"""The listing of a plan: whatever comes, goes or stops meanwhile, no image is lost, and none comes twice."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import FaultyStore, forget, use

import nshot
from nshot.distributed import plan as plans
from nshot.distributed import shards
from nshot.distributed.plan import Plan
from nshot.distributed.run import Request, make_shards, planned
from nshot.embeddings.parts import part_name
from nshot.errors import RequestError, SourceError
from nshot.images.sources import expand
from nshot.objects import folder as folders
from nshot.objects import open_folder

pa = pytest.importorskip("pyarrow", reason="plans are Parquet: they need pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """An empty store."""
    pytest.importorskip("obstore", reason="object stores need obstore")
    faulty = FaultyStore()
    with faulty.serving() as endpoint:
        use(monkeypatch, endpoint)
        yield faulty
    forget()


@pytest.fixture(autouse=True)
def _pieces_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_PIECE", 2)


def images(plan: Plan) -> list[str]:
    """The names in a plan, without their folders."""
    found = plan.entries(range(plan.shards))
    return [entry.source.rpartition("/")[2] for _, entries in found for entry in entries]


def cut_off(folder: Path | str, request: Request, model: nshot.Model, count: int) -> None:
    """List so many names and stop."""

    def told(listed: int) -> None:
        if listed == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(folder, request, model, told=told)


def test_a_folder_that_lost_the_image_where_its_listing_stopped_is_listed_anew(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    model, request = nshot.load(tiny), Request([str(photos)], shard_size=5)
    cut_off(tmp_path / "v", request, model, 4)
    there = sorted(path.name for path in photos.iterdir())
    (photos / there[3]).unlink()
    assert images(planned(tmp_path / "v", request, model)) == there[:3] + there[4:]
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["manifest.parquet"]


def test_a_folder_that_got_an_image_since_its_listing_stopped_is_listed_once(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    model, request = nshot.load(tiny), Request([str(photos)], shard_size=5)
    cut_off(tmp_path / "v", request, model, 4)
    (photos / "000.jpg").write_bytes((photos / "00.jpg").read_bytes())
    assert images(planned(tmp_path / "v", request, model)) == sorted(path.name for path in photos.iterdir())


def test_a_list_that_names_an_image_several_times_goes_on_where_it_stopped(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "list.csv"
    rows = ["00.jpg", "03.jpg", "00.jpg", "03.jpg", "00.jpg", "06.jpg", "00.jpg"]
    rows = [str(photos / row) for row in rows if (photos / row).exists()]
    table.write_text("image\n" + "\n".join(rows) + "\n")
    model, request = nshot.load(tiny), Request([str(table)], shard_size=5)
    whole = images(planned(tmp_path / "whole", request, model))
    assert len(whole) == len(rows)
    cut_off(tmp_path / "v", request, model, 4)
    assert images(planned(tmp_path / "v", request, model)) == whole


def test_of_two_that_write_a_piece_at_once_the_first_ones_stands(
    tiny: Path, photos: Path, store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        store.objects[f"photos/{number}.jpg"] = (photos / "00.jpg").read_bytes()
    model, request = nshot.load(tiny), Request(["s3://bucket/photos/"], shard_size=5)
    real = plans._Pieces._write
    met: list[bytes] = []

    def write(pieces: plans._Pieces, *piece: object) -> bool:
        if not met:  # another process is quicker, and lists after an image came
            met.append(store.objects.setdefault("photos/00.jpg", store.objects["photos/0.jpg"]))
            cut_off(tmp_path / "v", request, model, 2)
        return real(pieces, *piece)  # type: ignore[arg-type]

    monkeypatch.setattr(plans._Pieces, "_write", write)
    found = images(planned(tmp_path / "v", request, model))
    assert found == sorted(["00.jpg", *(f"{number}.jpg" for number in range(8))])


def test_a_known_object_that_changed_since_the_plan_is_read_as_it_is_now(
    tiny: Path, photos: Path, store: FaultyStore, tmp_path: Path
) -> None:
    paths = sorted(photos.iterdir())
    store.objects["photos/a.jpg"] = paths[0].read_bytes()
    model = nshot.load(tiny, store=tmp_path / "store")
    (before,) = model.embed("s3://bucket/photos/").vectors
    plan = planned(tmp_path / "v", Request(["s3://bucket/photos/"]), model)
    asked = store.asked.total()
    store.objects["photos/a.jpg"] = paths[3].read_bytes()
    list(make_shards(plan, model))
    (now,) = nshot.open(tmp_path / "v").vectors  # type: ignore[union-attr]
    assert (now == model.embed(paths[3]).vectors[0]).all()
    assert (now != before).any()
    assert store.asked.total() == asked + 1
    again = planned(tmp_path / "w", Request(["s3://bucket/photos/"]), model)
    list(make_shards(again, model))
    assert store.asked.total() == asked + 1  # and unchanged, it is not read again


def test_a_name_that_obstore_cannot_say_fails_its_folder_and_stops_no_other(store: FaultyStore) -> None:
    keys = ["p/a.jpg", "p/b//x.jpg", "p/b/y.jpg", "p/c/d/e.jpg", "p/c/d.jpg", "p/f.jpg"]
    store.objects = dict.fromkeys(keys, b"x")
    for store.page in (1000, 1):
        found = list(expand(["s3://bucket/p/"]))
        names = [each.name.removeprefix("s3://bucket/") for each in found]
        assert names == ["p/a.jpg", "p/b/", "p/c/d.jpg", "p/c/d/e.jpg", "p/f.jpg"]
        assert [number for number, each in enumerate(found) if each.failure is not None] == [1]
        assert "the name 'p/b//' has an empty part between slashes" in str(found[1].failure)
    with pytest.raises(SourceError, match="the name 'p/b//' has an empty part"):
        list(expand(["s3://bucket/p/b/"]))
    store.objects["/q.jpg"] = b"x"
    assert next(expand(["s3://bucket/"])).failure is not None


def test_a_name_with_brackets_is_no_pattern_where_it_is_there(store: FaultyStore) -> None:
    store.objects = dict.fromkeys(["p/[1].jpg", "p/1.jpg", "p/[2]/a.jpg", "p/2/b.jpg"], b"x")
    for spec, wanted in {
        "p/[1].jpg": ["p/[1].jpg"],
        "p/[2]/": ["p/[2]/a.jpg"],
        "p/[2]": ["p/[2]/a.jpg"],
        "p/[12].jpg": ["p/1.jpg"],
        "p/[12]/*": ["p/2/b.jpg"],
    }.items():
        assert [each.name for each in expand([f"s3://bucket/{spec}"])] == [
            f"s3://bucket/{name}" for name in wanted
        ], spec


def test_a_large_plan_goes_into_a_store_in_pieces_and_the_first_one_stands(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_AT_ONCE", 4)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("all of it in memory"))
    folder = open_folder("s3://bucket/v/")
    for text in ("the first", "the second"):
        with folder.drafting("manifest.parquet", over=False) as draft:
            draft.write_text(text)
    assert store.objects["v/manifest.parquet"] == b"the first"


def test_verifying_takes_time_by_the_number_of_shards_and_not_by_its_square(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nshot.load(tiny)
    plan = planned(tmp_path / "v", Request([str(photos)], shard_size=1), model)
    list(make_shards(plan, model))
    asked: Counter[int] = Counter()

    def name(number: int) -> str:
        asked[number] += 1
        return part_name(number)

    monkeypatch.setattr(shards, "part_name", name)
    (tmp_path / "v" / "part-00099.parquet").write_bytes(b"")
    assert shards.leftover(plan) == ["part-00099.parquet"]
    assert max(asked.values()) == 1


def test_a_pattern_of_archives_or_tables_stands_for_what_they_hold(
    tiny: Path, photos: Path, store: FaultyStore, tmp_path: Path
) -> None:
    paths = sorted(photos.iterdir())
    held = tmp_path / "held"
    held.mkdir()
    for number in range(2):
        images = [path.read_bytes() for path in paths[number * 3 : number * 3 + 3]]
        pq.write_table(pa.table({"image": images}), held / f"{number}.parquet")
        with zipfile.ZipFile(held / f"{number}.zip", "w") as archive:
            for path in paths[number * 3 : number * 3 + 3]:
                archive.write(path, path.name)
    for ending in ("parquet", "zip"):
        (held / f"2.{ending}").write_bytes(b"neither of them")
    for path in held.iterdir():
        store.objects[f"held/{path.name}"] = path.read_bytes()
    model = nshot.load(tiny)
    wanted = model.embed(paths[:6]).vectors
    for root in (tmp_path, "s3://bucket"):
        for ending in ("parquet", "zip"):
            pattern = f"{root}/held/*.{ending}"
            found = model.embed(pattern)
            assert (found.vectors == wanted).all()
            assert [each.source for each in found.failures.values()] == [f"{root}/held/2.{ending}"]
            folder = tmp_path / f"{ending}-{'://' in str(root)}"
            made = list(make_shards(planned(folder, Request([pattern]), model), model))
            assert [(each.rows, each.failed, each.broken is None) for each in made] == [
                *[(3, 0, True)] * 2,
                (1, 1, False),
            ]
            assert (nshot.open(folder).vectors == wanted).all()  # type: ignore[union-attr]


def test_of_tables_that_are_named_one_that_is_damaged_stops_no_other(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    model = nshot.load(tiny)
    bad, good = tmp_path / "0.parquet", tmp_path / "1.parquet"
    bad.write_bytes(b"PAR1")
    pq.write_table(pa.table({"image": [(photos / "00.jpg").read_bytes()]}), good)
    plan = planned(tmp_path / "v", Request([str(bad), str(good)]), model)
    assert [(each.rows, each.failed) for each in make_shards(plan, model)] == [(1, 1), (1, 0)]
    with pytest.raises(SourceError, match="no such file"):
        planned(tmp_path / "w", Request([str(good), str(tmp_path / "gone.parquet")]), model)


def test_vectors_are_not_put_among_the_images(
    tiny: Path, photos: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.objects["photos/a.jpg"] = (photos / "00.jpg").read_bytes()
    monkeypatch.chdir(photos.parent)
    model, before = nshot.load(tiny), sorted(photos.iterdir())
    for source, folder in (
        (str(photos), "photos/"),
        ("photos/*.jpg", str(photos)),
        ("s3://bucket/photos", "s3://bucket/photos/"),
        ("s3://bucket/photos/*.jpg", "s3://bucket/photos"),
    ):
        with pytest.raises(RequestError, match="holds the images: name another folder"):
            planned(folder, Request([source]), model)
    assert sorted(photos.iterdir()) == before
    assert list(store.objects) == ["photos/a.jpg"]
    planned("photos/vectors", Request(["photos/"]), model)  # below them they are no images by their names
    assert len(list(expand(["photos/"]))) == 12
