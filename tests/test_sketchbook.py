"""The sketchbook: seeded, varied, and true to what it says training never sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nshot import sketchbook
from nshot.sketchbook import captions as wording
from nshot.sketchbook import words
from nshot.sketchbook.pairs import captions, drawings, scene_seed

SEEN = [sketchbook.sample(number) for number in range(3000)]


def test_a_seed_gives_the_same_scene_image_and_words() -> None:
    for number in range(20):
        scene, again = sketchbook.sample(number), sketchbook.sample(number)
        assert scene == again
        assert sketchbook.draw(scene).tobytes() == sketchbook.draw(again).tobytes()
        assert sketchbook.caption(scene, 3) == sketchbook.caption(again, 3)


def test_seeds_give_different_images() -> None:
    assert len({sketchbook.draw(scene).tobytes() for scene in SEEN[:200]}) == 200


def test_a_seventh_of_the_pairs_is_held_out() -> None:
    assert len(sketchbook.PAIRS) == 144
    assert round(len(sketchbook.PAIRS) / 7) - 1 <= len(sketchbook.HELD_OUT_PAIRS) <= round(144 / 7) + 1
    assert not set(sketchbook.HELD_OUT_PAIRS) & set(sketchbook.SEEN_PAIRS)


def test_every_colour_and_shape_is_held_out_once_or_twice_and_met_ten_times() -> None:
    for place, names in ((0, sketchbook.COLOURS), (1, sketchbook.SHAPES)):
        held = Counter(pair[place] for pair in sketchbook.HELD_OUT_PAIRS)
        met = Counter(pair[place] for pair in sketchbook.SEEN_PAIRS)
        assert set(held) == set(names)
        assert set(held.values()) <= {1, 2}
        assert min(met[name] for name in names) >= 10


def test_training_never_sees_what_is_held_out() -> None:
    for scene in SEEN:
        assert scene.style != sketchbook.HELD_OUT_STYLE
        for thing in scene.things:
            assert not words.is_held_out(thing.colour, thing.shape)
            assert thing.shape not in sketchbook.NEW_SHAPES


def test_training_sees_all_the_rest() -> None:
    things = [thing for scene in SEEN for thing in scene.things]
    assert {(thing.colour, thing.shape) for thing in things} == set(sketchbook.SEEN_PAIRS)
    assert {scene.style for scene in SEEN} == set(sketchbook.SEEN_STYLES)
    assert {thing.texture for thing in things} == set(words.TEXTURES)
    assert {len(scene.things) for scene in SEEN} == {1, 2, 3}


def test_training_never_reads_the_words_for_what_is_held_out() -> None:
    text = " ".join(sketchbook.caption(scene, i, full=i % 2 == 0) for i, scene in enumerate(SEEN))
    forbidden = {word for shape in sketchbook.NEW_SHAPES for word in (shape, *words.SHAPE_WORDS[shape])}
    assert not {"pixel", "pixelated", "sprite", *forbidden} & set(text.replace(".", "").split())


def test_captions_come_in_many_forms_with_and_without_each_attribute() -> None:
    scene = next(s for s in SEEN if len(s.things) == 1 and s.things[0].texture != "plain")
    thing = scene.things[0]
    texts = {sketchbook.caption(scene, number) for number in range(400)}
    assert len(texts) > 200
    colour = (thing.colour, *words.COLOUR_WORDS[thing.colour])
    shape = (thing.shape, *words.SHAPE_WORDS[thing.shape])
    for several in (colour, shape, words.TEXTURE_WORDS[thing.texture]):
        named = sum(any(word in text for word in several) for text in texts)
        assert 0 < named < len(texts)
    assert all(any(word in text for text in texts) for word in colour + shape)


@pytest.mark.parametrize("style", sketchbook.STYLES)
def test_every_style_draws_its_object_where_the_scene_says(style: str) -> None:
    scene = sketchbook.sample(5, styles=(style,), pairs=[("red", "circle")], several=0)
    thing = scene.things[0]
    pixels = np.asarray(sketchbook.draw(scene)).astype(float)
    redness = pixels[..., 0] - pixels[..., 1:].mean(axis=2)
    tall, wide = np.indices(redness.shape) / sketchbook.SIZE
    inside = (wide - thing.x) ** 2 + (tall - thing.y) ** 2 < (1.1 * thing.radius) ** 2
    assert redness[inside].mean() > redness[~inside].mean() + 15


def test_drawings_are_anti_aliased() -> None:
    scene = sketchbook.sample(2, styles=("flat",), pairs=[("red", "circle")], several=0)
    assert len(np.unique(np.asarray(sketchbook.draw(scene)).reshape(-1, 3), axis=0)) > 20


def test_a_drawing_can_be_larger() -> None:
    assert sketchbook.draw(SEEN[0], 96).size == (96, 96)


def test_every_shape_has_its_own_outline() -> None:
    images = []
    for shape in (*sketchbook.SHAPES, *sketchbook.NEW_SHAPES):
        thing = sketchbook.Thing("red", shape, "plain", 0.5, 0.5, 0.4, 0)
        scene = sketchbook.Scene("flat", (thing,), "white", 0)
        images.append(np.asarray(sketchbook.draw(scene)).astype(float))
    apart = [abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(apart) > 3


def test_drawings_are_kept_and_are_those_of_their_seeds(tmp_path: Path) -> None:
    kept = drawings(tmp_path, 5, 3, workers=1)
    assert kept.shape == (5, 3, sketchbook.SIZE, sketchbook.SIZE)
    image = sketchbook.draw(sketchbook.sample(scene_seed(3, 4)))
    assert np.array_equal(kept[4], np.asarray(image).transpose(2, 0, 1))
    before = next(tmp_path.iterdir()).stat().st_mtime_ns
    drawings(tmp_path, 5, 3)
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == before
    assert [len(texts) for texts in captions(5, 3, variants=2)] == [2] * 5


def test_the_exhibition_shows_what_training_never_sees() -> None:
    exhibits = sketchbook.exhibition()
    assert len(exhibits) == 24
    for exhibit in exhibits:
        thing = exhibit.scene.things[0]
        assert exhibit.label == f"{thing.colour} {thing.shape}"
        if exhibit.novelty == "pair":
            assert words.is_held_out(thing.colour, thing.shape)
        else:
            assert exhibit.scene.style == sketchbook.HELD_OUT_STYLE


def test_plurals_and_articles() -> None:
    assert [wording.plural(word) for word in ("fish", "cross", "star")] == ["fish", "crosses", "stars"]
    assert [wording.with_article(word) for word in ("arrow", "star")] == ["an arrow", "a star"]
