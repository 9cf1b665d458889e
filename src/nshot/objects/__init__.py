"""Object stores: S3, Google Cloud Storage, Azure Blob Storage, and what speaks the language of one of them.

    s3://bucket/key   gs://bucket/key   az://container/key

A folder (a prefix) is listed in pages, an object is read with retries, and a folder that is written into,
here or in a store, holds only whole files.
"""

from __future__ import annotations

from nshot.objects.file import ObjectFile, ObjectPath
from nshot.objects.folder import Folder, open_folder, uploaded
from nshot.objects.stores import Meta, Place, StoreFailure, is_object_url, unsayable

__all__ = [
    "Folder",
    "Meta",
    "ObjectFile",
    "ObjectPath",
    "Place",
    "StoreFailure",
    "is_object_url",
    "open_folder",
    "unsayable",
    "uploaded",
]
