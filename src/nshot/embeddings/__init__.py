"""Many embedded images, in memory and in files: what ``nshot embed`` writes, and plain arrays of others.

    .npz      vectors float32[n,d], sources str[n], meta (JSON: recipe, model, failures), labels where known
    .parquet  source, vector (a list of floats), error_type, error_message, labels where known
    folder/   many Parquet files of vectors and their plan (see ``nshot.embeddings.parts``)
    .npy      somebody else's float[n,d]; so is an .npz with one such array, or with one of a usual name

A file is known by its content, not by its name, and nothing in it is ever executed (no pickles).
"""

from __future__ import annotations

from nshot.embeddings.embeddings import Embeddings
from nshot.embeddings.parts import Parts, is_parts
from nshot.embeddings.reader import is_vector_file, read_vectors
from nshot.embeddings.stored import stored
from nshot.embeddings.writer import VectorWriter, open_writer

__all__ = [
    "Embeddings",
    "Parts",
    "VectorWriter",
    "is_parts",
    "is_vector_file",
    "open_writer",
    "read_vectors",
    "stored",
]
