"""Options that several commands share, and what they turn into."""

from nshot.cli.options.decision import MULTI, DecisionOptions, decision_options
from nshot.cli.options.journal import FACET, JournalOptions, journal_options
from nshot.cli.options.labels import LabelOptions, classifier_option, label_options
from nshot.cli.options.listing import (
    IMAGE_COLUMN,
    IMAGE_ROOT,
    STRICT,
    Listing,
    listing_options,
    source_arguments,
)
from nshot.cli.options.model import ModelOptions, model_options
from nshot.cli.options.output import RAY, format_of, into_stores, output_options
from nshot.cli.options.packing import Command, packed
from nshot.cli.options.talk import echo, progress, say, talk_options, tell_failed, tell_failure, tell_remarks

__all__ = [
    "FACET",
    "IMAGE_COLUMN",
    "IMAGE_ROOT",
    "MULTI",
    "RAY",
    "STRICT",
    "Command",
    "DecisionOptions",
    "JournalOptions",
    "LabelOptions",
    "Listing",
    "ModelOptions",
    "classifier_option",
    "decision_options",
    "echo",
    "format_of",
    "into_stores",
    "journal_options",
    "label_options",
    "listing_options",
    "model_options",
    "output_options",
    "packed",
    "progress",
    "say",
    "source_arguments",
    "talk_options",
    "tell_failed",
    "tell_failure",
    "tell_remarks",
]
