"""Images that are in memory already: encoded bytes, PIL images, arrays of numpy, torch and others.

What an array means, stated once:

    uint8 [h,w]                grey
    uint8 [h,w,3], [h,w,4]     RGB, RGBA
    uint8 [3,h,w], [1,h,w]     the same with the channels first, as torch has it
    float of these shapes      values in [0, 1]; anything else is refused
    [n, ...] of four axes      n images

Where both ends could be channels ([3,h,3]), they are last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nshot.errors import RequestError, UndecodableImage

if TYPE_CHECKING:
    from PIL.Image import Image

_LAST = (1, 3, 4)
_FIRST = (1, 3)


def is_array(value: Any) -> bool:
    """Whether a value is an array of numbers: numpy's, torch's, or anything with ``__array__`` and axes."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and hasattr(value, "ndim")


def each(images: Iterable[Any]) -> Iterator[Any]:
    """The images of a collection: a list, a column of a DataFrame, an array of names, a batch of pixels.

    Raises:
        RequestError: a table or a mapping, of which only one column can be images; or an array of other axes.
    """
    if isinstance(images, Mapping) or (hasattr(images, "columns") and hasattr(images, "iloc")):
        kind = type(images).__name__
        raise RequestError(f'{kind} is not a list of images: pass one column of it, such as table["path"]')
    if not is_array(images) or hasattr(images, "iloc"):
        return iter(images)
    array = _as_numpy(images)
    if array.dtype.kind in "OUS":
        return iter(array.ravel().tolist())
    if array.ndim != 4:
        raise RequestError(
            f"an array {array.dtype}{list(array.shape)} is neither one image nor a batch: give "
            "uint8[height, width, 3], or uint8[n, height, width, 3] for n images"
        )
    return iter(array)


def is_one_image(value: Any) -> bool:
    """Whether an array has the axes of one image; a batch, or an array of names, is several."""
    return is_array(value) and not hasattr(value, "iloc") and value.ndim in (2, 3) and _is_numeric(value)


def to_pillow(image: Any) -> Image:
    """A PIL image, or an array by the rule above, as a PIL image.

    Raises:
        UndecodableImage: it is neither, or the numbers of an array are outside their range.
    """
    from PIL import Image

    if is_array(image) and not isinstance(image, Image.Image):
        image = Image.fromarray(_pixels(image))
    if not isinstance(image, Image.Image):
        raise UndecodableImage(
            f"{type(image).__name__} is not an image: give a path, a URL, bytes, a PIL image or an array"
        )
    return image


def takes(image: Any) -> int:
    """Bytes that a PIL image or an array and its encoded form take; 0 for what is neither."""
    width, height = getattr(image, "width", 0), getattr(image, "height", 0)
    if isinstance(width, int) and isinstance(height, int) and width * height:
        return 5 * width * height
    held = getattr(image, "nbytes", 0)
    return 2 * held if isinstance(held, int) else 0


def encoded(image: Any) -> bytes:
    """A PIL image or an array as the bytes of an uncompressed TIFF, so that all images go one way.

    Raises:
        UndecodableImage: see ``to_pillow``; or a lazily opened image turns out to be damaged.
    """
    import io

    image = to_pillow(image)
    buffer = io.BytesIO()
    try:
        exif = image.getexif()  # the orientation goes along
        if image.has_transparency_data:
            image = image.convert("RGBA")
        elif image.mode not in ("1", "L", "RGB", "CMYK", "LAB", "I", "I;16", "F"):
            image = image.convert("RGB")
        image.save(buffer, "TIFF", compression="raw", exif=exif)
    except Exception as error:  # a lazily opened image is decoded here
        raise UndecodableImage(f"damaged, or not supported ({error})") from error
    return buffer.getvalue()


def _is_numeric(value: Any) -> bool:
    kind = getattr(value.dtype, "kind", None)  # torch's dtypes have none, and are numbers
    return kind is None or kind in "uifb"


def _as_numpy(array: Any) -> Any:
    import numpy as np

    if hasattr(array, "detach"):  # a tensor: may want a gradient, or be on a GPU
        array = array.detach().cpu()
    return np.asarray(array)


def _pixels(image: Any) -> Any:
    """uint8[h,w], [h,w,3] or [h,w,4], contiguous."""
    import numpy as np

    array = _as_numpy(image)
    described = f"an array {array.dtype}{list(array.shape)}"
    if array.ndim == 3 and array.shape[2] not in _LAST and array.shape[0] in _FIRST:
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _LAST) or not array.size:
        raise UndecodableImage(f"{described} is not an image; give uint8[height, width, 3], RGB")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also where one of them is not a number
            raise UndecodableImage(
                f"{described} has values from {low:g} to {high:g}: floats are taken as 0 for black to 1 for "
                "white, so give those, or uint8 from 0 to 255, and nothing normalised"
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UndecodableImage(f"{described}; give uint8 from 0 to 255, or floats from 0 to 1")
    return np.ascontiguousarray(array)
