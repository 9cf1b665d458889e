"""The public names, pinned."""

from __future__ import annotations

import nshot


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert nshot.__all__ == [
        "__version__",
        "Classifier",
        "Decided",
        "Decision",
        "Detector",
        "Embedded",
        "Embedder",
        "Embeddings",
        "Faceted",
        "Facets",
        "Failure",
        "LabelScore",
        "Limits",
        "Located",
        "Model",
        "NshotError",
        "Placed",
        "Prediction",
        "Predictions",
        "Source",
        "TreeClassifier",
        "calibrate",
        "cascade",
        "cluster",
        "duplicates",
        "evaluate",
        "fit",
        "load",
        "load_detector",
        "open",
        "open_labelled",
        "quantise",
        "zero_shot",
    ]
    for name in nshot.__all__:
        assert getattr(nshot, name) is not None


def test_zero_shot_is_the_function_whatever_was_imported_before() -> None:
    import nshot.classifier.zero_shot
    import nshot.cli.classify

    assert callable(nshot.zero_shot)
