"""Search, duplicates, clusters: arrays of images' vectors in, answers out; nothing is encoded twice.

search(photos, compose("a dog", texts=...))     the nearest images, and whether any of them fits
nearest(photos)                                 each image's nearest others
duplicates(photos)                              same bytes, same picture, same scene
copies(train, test)                             what is there twice; across(...) by name
cluster(photos)                                 groups with names
Index                                           vectors on disk, for many images
"""

from nshot.search.asking import check_texts, generic_texts, look_for
from nshot.search.clusters import Cluster, Clusters, Join, cluster, joined, suggest_labels
from nshot.search.duplicates import KINDS, Duplicates, Group, Measured, duplicates
from nshot.search.fits import FITS
from nshot.search.hashing import Picture, look_at
from nshot.search.index import MANY, Index
from nshot.search.product import neighbours, pairs, top
from nshot.search.searching import Hit, Hits, Query, compose, nearest, search
from nshot.search.twice import ALIKE, Across, Copy, across, copies, differently_labelled
from nshot.search.words import NAMES

__all__ = [
    "ALIKE",
    "FITS",
    "KINDS",
    "MANY",
    "NAMES",
    "Across",
    "Cluster",
    "Clusters",
    "Copy",
    "Duplicates",
    "Group",
    "Hit",
    "Hits",
    "Index",
    "Join",
    "Measured",
    "Picture",
    "Query",
    "across",
    "check_texts",
    "cluster",
    "compose",
    "copies",
    "differently_labelled",
    "duplicates",
    "generic_texts",
    "joined",
    "look_at",
    "look_for",
    "nearest",
    "neighbours",
    "pairs",
    "search",
    "suggest_labels",
    "top",
]
