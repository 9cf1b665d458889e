"""Labels as keywords in XMP sidecars, and back."""

from nshot.output.tagging.tagging import JOURNAL, Tag, TagsUndone, plan_tags, undo_tags, write_tags
from nshot.output.tagging.xmp import SidecarError, keywords_of, with_keywords

__all__ = [
    "JOURNAL",
    "SidecarError",
    "Tag",
    "TagsUndone",
    "keywords_of",
    "plan_tags",
    "undo_tags",
    "with_keywords",
    "write_tags",
]
