"""Search, duplicates and clusters, measured: ``python bench/search.py [PART ...]``.

Parts: recall, fits, speed, duplicates, plain, pairs, clusters, names; all of them by default. Recorded
vectors and photographs are looked for beside the repository, in ../shared/data; a part that lacks its data
says so.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import nshot
from nshot import search
from nshot.decision.background import EVERYDAY
from nshot.embeddings import Embeddings
from nshot.images.decode import decode
from nshot.search.clusters import components
from nshot.sketchbook import drawing, scenes, words
from nshot.unit import normalize

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDED, RECORDED2 = DATA / "recorded", DATA / "recorded2"
CIFAR = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "boat", "truck"]
# a class's node in WordNet: kinds of vehicles and boats pass into each other at 32 pixels
WORDNET = {
    "car": "vehicle",
    "truck": "vehicle",
    "boat": "vehicle",
    "airplane": "vehicle",
    "bicycle": "vehicle",
}
ALIASES = {"omelette": "omelet", "tacos": "taco"}

Floats = NDArray[np.float32]


def auroc(high: Floats, low: Floats) -> float:
    """The chance that one of the high ones is over one of the low ones; equal ones count half."""
    return float((high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean())


def interval(right: NDArray[Any], draws: int = 1000) -> str:
    """A share and its bootstrap interval of 95 %."""
    rng = np.random.default_rng(0)
    means = [right[rng.integers(len(right), size=len(right))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{right.mean():.3f} ({low:.3f} to {high:.3f})"


def bank() -> dict[str, Floats]:
    """Names and what OpenAI's ViT-B/32 makes of "a {name}"."""
    names: dict[str, Floats] = {}
    with np.load(RECORDED / "text_bank_vitb32.npz") as data:
        for group, key in (("lvis", ""), ("o365", ""), ("oid", ""), ("coco", ""), ("imagenet", "_a")):
            for name, row in zip(data[f"{group}_names"], data[f"{group}{key}_embeds"], strict=True):
                names.setdefault(str(name).lower().replace("_", " "), row.astype(np.float32))
    return names


def labelled() -> Iterator[tuple[str, Floats, NDArray[np.int64], list[str]]]:
    """Recorded sets: name, unit vectors, labels, classes."""
    with np.load(RECORDED / "cifar10_vitb32.npz") as data:
        yield "cifar10", normalize(data["image_embeds"]), data["labels"].astype(int), CIFAR
    for path in sorted(RECORDED2.glob("*.npz")):
        with np.load(path) as data:
            if "labels" not in data.files or "image_embeds" not in data.files:
                continue
            known = data["labels"] >= 0
            classes = [str(each).lower().replace("_", " ") for each in data["classes"]]
            yield (
                path.stem,
                normalize(data["image_embeds"][known]),
                data["labels"][known].astype(int),
                classes,
            )


def recall() -> None:
    """Text to image against the plain product."""
    for name, path, key in (
        ("Flickr8k, 300 captions of 60 photographs", RECORDED / "flickr8k_vitb32.npz", "caption_image"),
        ("fashion pairs, 599", RECORDED2 / "fashion_marqo.npz", None),
    ):
        with np.load(path) as data:
            images, texts = normalize(data["image_embeds"]), normalize(data["text_embeds"])
            own = np.arange(len(texts)) if key is None else data[key].astype(int)
        photos = Embeddings.of(images)
        plain = np.argsort(-(texts @ images.T), axis=1, kind="stable")[:, :10]
        found = np.array(
            [
                [hit.row for hit in search.search(photos, search.compose("t", texts=text), 10)]
                for text in texts
            ]
        )
        with tempfile.TemporaryDirectory() as folder:
            index = search.Index.build(photos, Path(folder, "index"))
            half = np.array(
                [
                    [hit.row for hit in search.search(index, search.compose("t", texts=text), 10)]
                    for text in texts
                ]
            )
        for rank in (1, 5, 10):
            line = [interval((rows[:, :rank] == own[:, None]).any(axis=1)) for rows in (plain, found, half)]
            print(
                f"{name}, recall@{rank}: plain product {line[0]}, search {line[1]}, float16 index {line[2]}"
            )


def _best(images: Floats, questions: Floats, background: Floats) -> tuple[Floats, Floats]:
    """Of each question: the largest cosine, and the largest score of the thousand nearest images."""
    photos = Embeddings.of(images)
    cosines, scores = [], []
    for question in questions:
        query = search.compose("t", texts=question, generic_texts=background)
        hits = search.search(photos, query, 20)
        cosines.append(hits[0].cosine)
        scores.append(hits.best or 0.0)
    return np.array(cosines, np.float32), np.array(scores, np.float32)


def fits() -> None:
    """Absent questions against present ones."""
    names = bank()
    background = np.stack([names[word] for word in EVERYDAY])
    sets = {
        name: (rows, [ALIASES.get(each, each) for each in classes])
        for name, rows, _, classes in labelled()
        if name.startswith(("cifar10", "food10", "animals84", "mixed111"))
    }
    for name, (rows, classes) in sets.items():
        present = [each for each in classes if each in names]
        others = {each for _, more in sets.values() for each in more if each in names} - set(present)
        every = [each for each in names if each not in present]
        some = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:400]]
        kinds = [
            ("other sets' names", sorted(others)),
            ("names of the bank", some),
            ("ImageNet's names that are no kind of them", _elsewhere(present, names)),
        ]
        for what, absent in kinds:
            yes = _best(rows, np.stack([names[each] for each in present]), background)
            no = _best(rows, np.stack([names[each] for each in absent]), background)
            _tell(f"{name}, {len(present)} names against {len(absent)} {what}", yes, no)
    with np.load(RECORDED / "flickr8k_vitb32.npz") as data:
        images, texts = normalize(data["image_embeds"]), normalize(data["text_embeds"])
        own = data["caption_image"].astype(int)
    for seed in range(3):
        half = np.random.default_rng(seed).permutation(60)[:30]
        here = np.isin(own, half)
        yes, no = (_best(images[half], texts[each], background) for each in (here, ~here))
        _tell(f"Flickr8k, captions of 30 photographs against those of 30 others, draw {seed}", yes, no)
    clip = nshot.load("sketchbook")
    drawn = [scenes.sample(7_000_000 + i, pairs=words.PAIRS) for i in range(400)]
    rows = np.asarray(clip.embed([drawing.draw(scene) for scene in drawn]))
    there = sorted({f"a {thing.colour} {thing.shape}" for scene in drawn for thing in scene.things})
    background = search.generic_texts(clip)
    for seed in range(3):
        absent = _nonsense(300, seed)
        yes, no = (_best(rows, clip.embed_texts(each), background) for each in (there, absent))
        _tell(f"sketchbook, {len(there)} pairs against 300 nonsense words, draw {seed}", yes, no)


def _elsewhere(present: list[str], known: dict[str, Floats]) -> list[str]:
    """Names of ImageNet's classes that are neither one of these things nor a kind of one, as WordNet has it.

    Of a plain bank's names many are there after all: a minivan and a Pekinese, among cars and dogs.
    """
    tree = json.loads((DATA / "taxonomies" / "imagenet1k_wordnet.json").read_text())
    nodes = tree["nodes"]
    above = {WORDNET.get(each, each.replace(" ", "_")) for each in present}
    found = []
    for leaf in tree["leaves"]:
        name, wnid, lineage = leaf["names"].lower(), leaf["wnid"], set()
        while wnid is not None:
            lineage.add(nodes[wnid]["synset"].split(".")[0])
            wnid = nodes[wnid]["parent"]
        if name in known and not lineage & above:
            found.append(name)
    return found


def _nonsense(count: int, seed: int) -> list[str]:
    """Words that can be said and mean nothing, and letters that cannot be said."""
    rng = random.Random(seed)

    def spoken() -> str:
        return "".join(
            rng.choice("bcdfghjklmnpqrstvwxz") + rng.choice("aeiouy") for _ in range(rng.randint(2, 4))
        )

    def typed() -> str:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 12)))

    return [" ".join(spoken() for _ in range(rng.randint(1, 3))) for _ in range(2 * count // 3)] + [
        typed() for _ in range(count - 2 * count // 3)
    ]


def _tell(what: str, yes: tuple[Floats, Floats], no: tuple[Floats, Floats]) -> None:
    raw, z = auroc(yes[0], no[0]), auroc(yes[1], no[1])
    fit, not_fit = (yes[1] >= search.FITS).mean(), (no[1] >= search.FITS).mean()
    print(f"{what}: AUROC fits {z:.3f}, raw cosine {raw:.3f}; said to fit: {fit:.2f} / {not_fit:.2f}")


def speed(rows: int = 1_000_000, dimension: int = 512) -> None:
    """One question and a hundred to a million vectors of float16, beside what memory and product give."""
    from nshot.search.product import top

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors.npy")
        written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, dimension))
        for start in range(0, rows, 50_000):
            part = rng.standard_normal((50_000, dimension), dtype=np.float32)
            written[start : start + 50_000] = normalize(part)
        del written
        vectors = np.load(path, mmap_mode="r")
        words_ = vectors.view(np.uint64)
        questions = normalize(rng.standard_normal((100, dimension)))
        wide = np.asarray(vectors[: rows // 5], np.float32)

        def read() -> None:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = [words_[start : start + 32_768] for start in range(0, rows, 32_768)]
                list(pool.map(np.max, parts))

        gigabytes = vectors.nbytes / 1e9
        times: dict[str, float] = {}
        for name, call in (
            ("read", read),
            ("one", lambda: top(vectors, questions[:1], 20)),
            ("product", lambda: wide @ questions.T),
            ("hundred", lambda: top(vectors, questions, 20)),
        ):
            best = min(_time(call) for _ in range(7))
            times[name] = best * 5 if name == "product" else best
        print(f"{rows:,} x {dimension}, float16: reading all {gigabytes / times['read']:.1f} GB/s")
        share = times["read"] / times["one"]
        print(f"  one question {times['one'] * 1e3:.0f} ms, {share:.0%} of the speed of reading")
        share = times["product"] / times["hundred"]
        print(f"  100 questions {times['hundred'] * 1e3:.0f} ms, {share:.0%} of the float32 product's speed")


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def pairs(rows: int = 100_000, dimension: int = 512) -> None:
    """All pairs, with 1000 planted ones, beside the bare product."""
    rng = np.random.default_rng(0)
    vectors = normalize(rng.standard_normal((rows, dimension), dtype=np.float32))
    vectors[1000:2000] = normalize(vectors[:1000] + 0.01 * rng.standard_normal((1000, dimension)))
    space = np.empty((2048, 4096), np.float32)
    start, processor = time.perf_counter(), time.process_time()
    for i in range(0, rows, 2048):
        for j in range(i, rows, 4096):
            one, two = vectors[i : i + 2048], vectors[j : j + 4096]
            out = space.reshape(-1)[: len(one) * len(two)].reshape(len(one), len(two))
            np.matmul(one, two.T, out=out)
    bare, bare_cpu = time.perf_counter() - start, time.process_time() - processor
    start, processor = time.perf_counter(), time.process_time()
    first, second, _, _ = search.pairs(vectors, 0.9)
    took, took_cpu = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    right = int((second - first == 1000).sum())
    print(
        f"all pairs of {rows:,} x {dimension}: {took:.0f} s, bare product {bare:.0f} s, x {took / bare:.2f}"
    )
    print(f"  processor {took_cpu:.0f} s and {bare_cpu:.0f} s, x {took_cpu / bare_cpu:.2f}")
    print(f"  {len(first)} pairs found, {right} of 1000 planted; peak of the whole process {peak:.2f} GB")


def duplicates(count: int = 490, copies: int = 5) -> None:
    """Photographs with copies of six kinds; then the near-duplicates that others test with."""
    with (DATA / "photos" / "manifest.csv").open() as file:
        paths = list(dict.fromkeys(row["path"] for row in csv.DictReader(file)))[:count]
    clip = nshot.load("sketchbook")
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, tuple[int, str]] = {}
        for number, path in enumerate(paths):
            data = (DATA / "photos" / path).read_bytes()
            try:
                image = decode(data).image
            except nshot.NshotError:
                continue
            name = Path(folder, f"{number:03}{Path(path).suffix}")
            name.write_bytes(data)
            made[str(name)] = number, "original"
            kinds = rng.permutation(list(COPIES))[:copies]
            for kind in kinds.tolist():
                copy, suffix = COPIES[kind](image, rng)
                target = Path(folder, f"{number:03}-{kind.replace(' ', '-')}{suffix}")
                target.write_bytes(copy)
                made[str(target)] = number, kind
        photos = clip.embed(sorted(made))
        start = time.process_time()
        found = search.duplicates(photos, embedder=clip)
        took = time.process_time() - start
        print(f"{len(photos)} files of {len(paths)} photographs: {took:.0f} s of processor")
        _score(found, made)
    near = DATA / "photos2" / "near"
    for group in search.duplicates(clip.embed(near), embedder=clip):
        print(f"  near: {group.kind}: {', '.join(Path(name).name for name in group.sources)}")


def plain(count: int = 150, copied: int = 30) -> None:
    """Plain images, hard to tell apart by their coarse frequencies, with copies and without any."""
    clip = nshot.load("sketchbook")
    for kind, draw in PLAIN.items():
        for many in (0, copied):
            rng = np.random.default_rng(3)
            with tempfile.TemporaryDirectory() as folder:
                made: dict[str, tuple[int, str]] = {}
                for number in range(count):
                    image = draw(np.random.default_rng((7, number)))
                    name = Path(folder, f"{number:03}.png")
                    image.save(name)
                    made[str(name)] = number, "original"
                    for each in rng.permutation(list(COPIES))[:5].tolist() if number < many else ():
                        copy, suffix = COPIES[each](image, rng)
                        target = Path(folder, f"{number:03}-{each.replace(' ', '-')}{suffix}")
                        target.write_bytes(copy)
                        made[str(target)] = number, each
                print(f"{kind}, {count} images, {many} of them with five copies")
                _score(search.duplicates(clip.embed(sorted(made)), embedder=clip), made)


def _lines(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, ...], step: int) -> None:
    """Lines of writing: words as dark bars with gaps, or real letters where they are large."""
    left, top, right, bottom = box
    for y in range(top, bottom - step, step):
        if rng.random() < 0.12:
            continue
        text = ""
        while draw.textlength(text) < (right - left) * (0.5 if rng.random() < 0.1 else 0.93):
            text += "".join(rng.choice(list("etaoinshrdlucm"), int(rng.integers(2, 9)))) + " "
        draw.text((left, y), text, fill=(30, 30, 30))


def _scan(rng: np.random.Generator) -> Image.Image:
    """A page of writing, as all pages of one book look."""
    page = Image.new("RGB", (420, 594), (250, 249, 246))
    _lines(ImageDraw.Draw(page), rng, (50, 60, 370, 540), 14)
    return page


def _screenshot(rng: np.random.Generator) -> Image.Image:
    """A window of one program: the same frame, other contents."""
    screen = Image.new("RGB", (640, 400), (240, 240, 240))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 640, 26), fill=(50, 60, 80))
    draw.rectangle((0, 26, 130, 400), fill=(225, 228, 232))
    _lines(draw, rng, (10, 40, 120, 220), 16)
    draw.rectangle((140, 36, 630, 390), fill=(255, 255, 255))
    _lines(draw, rng, (150, 44, 620, 44 + int(rng.integers(60, 340))), 14)
    return screen


def _product(rng: np.random.Generator) -> Image.Image:
    """One thing on a white ground, in the middle."""
    image = Image.new("RGB", (400, 400), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    width, height = rng.integers(60, 170, 2).tolist()
    box = (200 - width, 200 - height, 200 + width, 200 + height)
    colour = tuple(rng.integers(0, 220, 3).tolist())
    shape = rng.integers(3)
    if shape == 0:
        draw.ellipse(box, fill=colour)
    elif shape == 1:
        draw.rounded_rectangle(box, 20, fill=colour)
    else:
        draw.polygon([(200, box[1]), (box[2], box[3]), (box[0], box[3])], fill=colour)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.integers(140, 260, 2).tolist()
        draw.rectangle((x, y, x + 30, y + 12), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


def _slide(rng: np.random.Generator) -> Image.Image:
    """A slide of one talk: a bar, a title, points."""
    image = Image.new("RGB", (480, 270), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 480, 46), fill=(20, 90, 150))
    _lines(draw, rng, (20, 16, int(rng.integers(120, 400)), 32), 14)
    for point in range(int(rng.integers(2, 6))):
        _lines(draw, rng, (40, 66 + 36 * point, int(rng.integers(150, 440)), 84 + 36 * point), 16)
    return image


PLAIN: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "pages of writing": _scan,
    "screenshots of one program": _screenshot,
    "things on white": _product,
    "slides of one talk": _slide,
}


def _score(found: search.Duplicates, made: dict[str, tuple[int, str]]) -> None:
    told: set[frozenset[str]] = set()
    for group in (*found.of("copy"), *found.of("same")):
        told |= {frozenset(pair) for pair in combinations(group.sources, 2)}
    by_number: dict[int, list[str]] = {}
    for name, (number, _) in made.items():
        by_number.setdefault(number, []).append(name)
    true = {frozenset(pair) for names in by_number.values() for pair in combinations(names, 2)}
    right = len(told & true)
    precision, found_again = right / max(len(told), 1), right / max(len(true), 1)
    print(f"  precision {precision:.4f}, recall {found_again:.4f} of {len(true)} pairs")
    print(f"  {found.measured}")
    print(
        f"  told false rate {found.measured.false_rate:.4%}, true {1 - right / max(len(told), 1):.4%}: "
        f"{found.measured.decoys} and {len(told - true)} of {len(told)} pairs"
    )
    for pair in sorted(told - true, key=sorted)[:3]:
        print("  wrong:", sorted(Path(name).name for name in pair))
    missed: dict[str, int] = {}
    for pair in true - told:
        for name in pair:
            missed[made[name][1]] = missed.get(made[name][1], 0) + 1
    print(f"  missed, by kind: {missed}")


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, format, **options)
    return held.getvalue()


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.4, 0.8)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cut(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    width, height = image.size
    left, top = rng.uniform(0, share, 2)
    return image.crop(
        (
            int(left * width),
            int(top * height),
            int((1 - share + left) * width),
            int((1 - share + top) * height),
        )
    )


COPIES: dict[str, Callable[[Image.Image, np.random.Generator], tuple[bytes, str]]] = {
    "resized": lambda image, rng: (_save(_resized(image, rng), "JPEG", quality=85), ".jpg"),
    "recompressed": lambda image, rng: (_save(image, "JPEG", quality=int(rng.integers(25, 60))), ".jpg"),
    "as png": lambda image, rng: (_save(image, "PNG"), ".png"),
    "as webp": lambda image, rng: (_save(image, "WEBP", quality=50), ".webp"),
    "cropped": lambda image, rng: (
        _save(_cut(image, rng, rng.uniform(0.02, 0.06)), "JPEG", quality=90),
        ".jpg",
    ),
    "cropped and resized": lambda image, rng: (
        _save(_resized(_cut(image, rng, rng.uniform(0.02, 0.06)), rng), "JPEG", quality=75),
        ".jpg",
    ),
}


def clusters() -> None:
    """Adjusted mutual information at the true number of clusters, beside k-means on vectors, and HDBSCAN."""
    from sklearn.cluster import HDBSCAN, KMeans
    from sklearn.metrics import adjusted_mutual_info_score as ami

    table = []
    for name, rows, labels, _ in labelled():
        k = len(np.unique(labels))
        points = components(rows)
        ours = [ami(labels, search.cluster(Embeddings.of(rows), k, seed=seed).labels) for seed in range(3)]
        raw = [ami(labels, KMeans(k, n_init=10, random_state=seed).fit(rows).labels_) for seed in range(3)]
        dense = ami(labels, HDBSCAN(min_cluster_size=5, copy=True).fit(points).labels_)
        table.append((float(np.mean(ours)), float(np.mean(raw)), dense))
        print(f"{name:22} {len(rows):5} images, {k:2}: " + "  ".join(f"{x:.3f}" for x in table[-1]))
    mean = np.mean(table, axis=0)
    print(f"mean: nshot {mean[0]:.3f}, k-means on the vectors {mean[1]:.3f}, HDBSCAN {mean[2]:.3f}")


def names() -> None:
    """What clusters of recorded sets are called, from 2400 names."""
    known = bank()
    for name, rows, labels, classes in labelled():
        if name.startswith(("cifar10", "food10_train", "animals84", "xray", "products")):
            found = search.cluster(
                Embeddings.of(rows),
                len(classes),
                names=list(known),
                name_vectors=np.stack(list(known.values())),
            )
            told = []
            for each in found.clusters:
                counts = np.bincount(labels[list(each.rows)], minlength=len(classes))
                told.append(f"{each.name} ({classes[int(counts.argmax())]} {counts.max() / len(each):.0%})")
            print(f"{name}: {', '.join(told)}")


PARTS = {part.__name__: part for part in (recall, fits, speed, duplicates, plain, pairs, clusters, names)}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        print(f"\n{part}: {PARTS[part].__doc__}")
        PARTS[part]()
