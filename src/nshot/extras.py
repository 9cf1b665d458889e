"""Optional dependencies, where they are installed: each is imported here and nowhere else."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from nshot.errors import MissingExtra


def pyarrow() -> Any:
    """The module, with what reading and writing Parquet takes.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra('Parquet needs pyarrow: pip install "nshot[data]"') from error
    return pyarrow


def nncf() -> Any:
    """The library that quantises a graph.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import nncf
        import nncf.quantization.advanced_parameters
        import nncf.quantization.range_estimator
    except ImportError as error:
        raise MissingExtra('int8 needs nncf: pip install "nshot[int8]"') from error
    return nncf


def pillow_heif() -> Any:
    """The reader of HEIC and HEIF.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtra('to read it, pip install "nshot[formats]" (pillow-heif)') from error
    return pillow_heif


def imagecodecs() -> Any:
    """The reader of JPEG XL.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtra('to read it, pip install "nshot[formats]" (imagecodecs)') from error
    return imagecodecs


def rawpy() -> Any:
    """The reader of cameras' raw files.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import rawpy
    except ImportError as error:
        raise MissingExtra('to read its preview, pip install "nshot[formats]" (rawpy)') from error
    return rawpy


def numkong() -> Any | None:
    """The module that multiplies float16 at the speed of memory, or None: numpy does without, more slowly."""
    try:
        import numkong
    except ImportError:
        return None
    return numkong


def faiss() -> Any:
    """The module that keeps inverted files.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra('an inverted file needs faiss: pip install "nshot[search]"') from error
    return faiss


def obstore() -> Any:
    """The module that speaks with object stores.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise MissingExtra(
            'object stores (s3://, gs://, az://) need obstore: pip install "nshot[cloud]"'
        ) from error
    return obstore


def one_thread_each() -> Any:
    """Within it, each thread multiplies matrices by itself, so that several can do so side by side.

    Without threadpoolctl it changes nothing.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1, user_api="blas")


def pycocotools() -> Any:
    """The reference measurement of boxes.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pycocotools.coco
        import pycocotools.cocoeval
    except ImportError as error:
        raise MissingExtra('measuring boxes needs pycocotools: pip install "nshot[eval]"') from error
    return pycocotools
