"""Labelled images and a zero-shot classifier of their labels: what fit, curve and robustness start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nshot.cli.asking import say_language, say_synonyms
from nshot.cli.data import DataOptions, check_choice, embed, with_one_label
from nshot.cli.options import LabelOptions, ModelOptions, say
from nshot.cli.refusing import leave_out

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.datasets.labelled import LabelledSet
    from nshot.embeddings import Embeddings
    from nshot.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """Images with one label each, and the prompts of those labels.

    Attributes:
        model: the model.
        labelled: the set that the images come from, to be listed again.
        examples: the images, embedded.
        zero: a zero-shot classifier of the labels that have a prompt.
    """

    model: Model
    labelled: LabelledSet
    examples: Embeddings
    zero: Classifier


def embed_prompted(
    data_options: DataOptions,
    label_options: LabelOptions,
    model_options: ModelOptions,
    *,
    prefer: Sequence[str] = ("train", "val", "test"),
    quiet: bool,
) -> Prompted:
    """Embed DATA, and write its labels into prompts.

    Without --labels every label of the data is its own prompt. With them, those are the labels, whether they
    have images or not; a label of the data that is not among them has no prompt, and is known by its
    images.
    """
    from nshot.few_shot.examples import enough

    given = label_options.given(quiet=quiet, alone=True)
    label_options.read_templates()  # rather now than after a download
    if label_options.label_vectors is not None:
        leave_out(
            "the labels' vectors are there already, so no prompt is written",
            template=label_options.template,
            templates=label_options.templates,
        )
    labelled = data_options.open(model_options, given, prefer=prefer, quiet=quiet)
    if labelled.classes is not None:
        check_choice({*labelled.classes, *(given.labels if given is not None else ())})
    options = replace(data_options.of_model(model_options), asked=lambda _: labelled)
    model = options.load(
        quiet=quiet, question=label_options.question(labelled.classes if given is None else given.labels)
    )
    images = embed(model, labelled, quiet=quiet)
    examples = with_one_label(images, labelled.name, quiet=quiet)
    if len(some := enough(examples)) < len(examples):
        say(f"{len(some):,} of the {len(examples):,} images, drawn label by label, are learnt from")
        examples = some
    names = given.labels if given is not None else list(images.classes)
    check_choice({*names, *examples.label})
    if (wordless := sorted(set(examples.label) - set(names))) and not quiet:
        say(f"known by their images alone, without a prompt: {', '.join(wordless)}")
    zero = label_options.classifier(model, names)
    say_language(names, model, quiet=quiet)
    say_synonyms(zero, quiet=quiet)
    return Prompted(model, labelled, examples, zero)
