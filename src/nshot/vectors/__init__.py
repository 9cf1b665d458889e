"""Vectors in files: what ``nshot embed`` writes, and the plain arrays that others have.

    .npz      vectors float32[n,d], sources str[n], meta (JSON: fingerprint, model, failures)
    .parquet  source, vector (a list of floats), error_type, error_message; its metadata: fingerprint, model
    .npy      somebody else's float[n,d]; so is an .npz with one such array, or with one of a usual name

A file is known by its content, not by its name, and nothing in it is ever executed (no pickles).
"""

from __future__ import annotations

from nshot.vectors.reader import VectorFile, is_vector_file, read_vectors
from nshot.vectors.writer import VectorWriter, open_writer

__all__ = ["VectorFile", "VectorWriter", "is_vector_file", "open_writer", "read_vectors"]
