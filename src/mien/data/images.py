"""From bytes to upright RGB pixels, and from a box to the square that a network sees: for training and prediction.

Whatever an image looks like to a person in a viewer is what comes out: turned upright by its EXIF note, grey and
CMYK as RGB, 16 bits reduced to 8, transparency over white, the first picture of an animation.
"""

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from mien.base.errors import MienError
from mien.data.image_structure import StructureError, check_structure

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded (Pillow's own bound for decompression bombs)."""

MIN_SIDE = 8
"""Images with a side shorter than this hold no face."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""Image formats that are read, as Pillow names them; HEIC too, with the extra heic."""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis")

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".avif",
    ".heic",
    ".heif",
)
"""Files with these suffixes, in upper or lower case, are taken from folders."""

RESIZE = "pillow-bilinear"
"""Resize filter of `cut`: Pillow's bilinear filter, which is antialiased. Model files name it in their metadata."""

Box = tuple[float, float, float, float]
"""x, y, width and height in pixels of the upright image; may reach beyond it."""

_EXIF_ORIENTATION = 0x0112
_TIFF_SIZE = (0x0100, 0x0101)

_LARGEST_SQUARE = 4
"""A square that reaches beyond its image has at most so many times its longer side: a box of all of it has three with
the largest margin."""


def check_there(folders: Iterable[Path]) -> None:
    """Raises where a folder of images is gone: images that are not found now are not missing for that.

    Raises:
        MienError: With the name of the folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MienError(
                f"folder {str(folder)!r} is gone, and its images with it; make it available and rerun the same "
                "command to resume"
            )


class ImageError(MienError):
    """An image that cannot be used: `reason` is one of a few short words that can be counted, the text says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return ImageError, (self.reason, str(self).partition(": ")[2])


Source = str | Path | bytes | np.ndarray | Image.Image
"""An image: a path, the bytes of an image file, pixels uint8 (or floats from 0 to 1) (h, w, 3) or (h, w), or Pillow's
image."""


def load(source: Source, min_size: int | None = None) -> np.ndarray:
    """Decodes a whole image.

    Args:
        source: A path, the bytes of an image file, or an image that is decoded already.
        min_size: If given, the decoder may reduce the image as long as its shorter side keeps this many pixels.

    Returns:
        uint8, (height, width, 3), upright RGB.

    Raises:
        ImageError: With `reason` one of missing, unreadable, empty, not an image, truncated, too large, too small,
            too complex, unsupported.
    """
    with _open(source) as image:
        if min_size is not None:
            _reduce(image, min_size / min(image.size))
        return np.asarray(_upright_rgb(image))


class Reduced(NamedTuple):
    """An image that the decoder may have reduced: upright RGB, and the size that it has in full, turned upright too."""

    image: Image.Image
    width: int
    height: int

    @property
    def scale(self) -> float:
        """Pixels of `image` in a pixel of the full size, at most 1."""
        return max(self.image.size) / max(self.width, self.height)


def load_reduced(source: Source, longer: Callable[[int], float]) -> Reduced:
    """Decodes a whole image, where the decoder can (JPEG) with no more pixels than are of use.

    Args:
        source: A path, the bytes of an image file, or an image that is decoded already.
        longer: Told the longer side in full, says how many pixels of it must remain.

    Raises:
        ImageError: As `load`.
    """
    with _open(source) as image:
        width, height = image.size
        if _lies_on_its_side(image):
            width, height = height, width
        _reduce(image, longer(max(width, height)) / max(width, height))
        return Reduced(_upright_rgb(image), width, height)


def dimensions(source: Source) -> tuple[int, int]:
    """Width and height in pixels of the upright image; nothing is decoded (except a PNG with EXIF behind its pixels).

    Raises:
        ImageError: As `load`, for what the header shows.
    """
    with _open(source) as image:
        return _upright_size(image)


def pixel_count(source: Source) -> int:
    """How many pixels the header states; nothing is decoded.

    Raises:
        ImageError: As `load`, for what the header shows.
    """
    with _open(source) as image:
        return image.width * image.height


def load_face(source: Source, size: int, box: Box | None = None, margin: float = 0.0) -> np.ndarray:
    """Decodes one face as the square that a network sees.

    See `load_face_and_side`.
    """
    return load_face_and_side(source, size, box, margin)[0]


def load_face_and_side(
    source: Source, size: int, box: Box | None = None, margin: float = 0.0
) -> tuple[np.ndarray, float]:
    """Decodes one face as the square that a network sees, and says how large the square is in the image.

    Args:
        source: A path, the bytes of an image file, or an image that is decoded already.
        size: Side of the square in pixels.
        box: The face in the upright image; None: the image is the face.
        margin: See `square`.

    Returns:
        uint8, (size, size, 3), upright RGB; the side of the square in pixels of the upright image.

    Raises:
        ImageError: As `load`.
    """
    with _open(source) as image:
        width, height = _upright_size(image)
        left, top, side = square(width, height, box, margin)
        _reduce(image, size / side)
        upright = _upright_rgb(image)
    scale = upright.width / width
    return cut(upright, (left * scale, top * scale, side * scale), size), side


def square(width: float, height: float, box: Box | None = None, margin: float = 0.0) -> tuple[float, float, float]:
    """The square (left, top, side) in pixels that is cut from an image of `width` x `height`.

    Around a box: centred on it, with its longer side plus `margin` times that side (0.4 adds a fifth at each edge);
    it may reach beyond the image. Without a box: the largest square in the middle of the image, and no margin.

    Raises:
        ImageError: The box is empty, or not finite.
    """
    if box is None:
        side = float(min(width, height))
        return (width - side) / 2, (height - side) / 2, side
    x, y, w, h = box
    side = max(w, h) * (1 + margin)
    if not (side > 0 and all(map(math.isfinite, (x, y, w, h, side)))):
        raise ImageError("outside", f"the box ({x:g}, {y:g}, {w:g}, {h:g}) holds nothing")
    return x + (w - side) / 2, y + (h - side) / 2, side


def cut(image: Image.Image | np.ndarray, where: tuple[float, float, float], size: int) -> np.ndarray:
    """Cuts the square (left, top, side) and resizes it with antialiasing to uint8 (size, size, 3).

    What lies beyond the image repeats its edge.

    Raises:
        ImageError: The square lies outside of the image, or is much larger than it.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    left, top, side = where
    _check_square(picture, where)
    pad = [
        max(0, math.ceil(excess)) for excess in (-left, -top, left + side - picture.width, top + side - picture.height)
    ]
    if any(pad):
        before_x, before_y, after_x, after_y = pad
        widths = ((before_y, after_y), (before_x, after_x), (0, 0))
        picture = Image.fromarray(np.pad(np.asarray(picture), widths, mode="edge"))
        left, top = left + before_x, top + before_y
    # Rounding may put the far edge a hair beyond the image, which Pillow refuses.
    edges = (left, top, min(left + side, picture.width), min(top + side, picture.height))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=edges))


def _check_square(picture: Image.Image, where: tuple[float, float, float]) -> None:
    """Raises where a square (left, top, side) asks for more padding than any face needs."""
    left, top, side = where
    beyond = max(-left, -top, left + side - picture.width, top + side - picture.height)
    if not beyond > 0:
        return
    of = f"of the image of {picture.width}x{picture.height}"
    if not (math.isfinite(beyond) and math.ceil(beyond) <= side):
        raise ImageError("outside", f"the box lies outside {of}")
    if side > _LARGEST_SQUARE * max(picture.size) or side * side > _LARGEST_SQUARE * MAX_PIXELS:
        raise ImageError("outside", f"the box of {side:,.0f} pixels a side reaches far outside {of}")


def file_size(path: str | Path) -> int:
    """How many bytes a file has.

    Raises:
        ImageError: It is missing, unreadable or empty.
    """
    try:
        size = Path(path).stat().st_size if Path(path).is_file() else -1
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"{path}: {error}") from error
    if size < 0:
        raise ImageError("missing", str(path))
    if size == 0:
        raise ImageError("empty", str(path))
    return size


def check_size(width: int, height: int, name: str) -> None:
    """Raises ImageError where so many pixels are too many to be decoded, or too few for a face."""
    if width * height > MAX_PIXELS:
        raise ImageError("too large", f"{name}: more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError("too small", f"{name}: {width}x{height} pixels, at least {MIN_SIDE} a side")


def _open(source: Source) -> Image.Image:
    """Reads the header, and refuses what cannot or should not be decoded."""
    if isinstance(source, np.ndarray):
        return _big_enough(_from_pixels(source), "pixels")
    if isinstance(source, Image.Image):
        return _big_enough(source.copy(), "image")  # the caller's stays open
    if isinstance(source, bytes):
        name = f"{len(source)} bytes"
        if not source:
            raise ImageError("empty", name)
    else:
        name = str(source)
        file_size(source)
    image = _read_header(source, name)
    # Pillow only warns up to twice its bound, and Python's filters of warnings are one for all threads.
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError("too large", f"{name}: {image.width}x{image.height} pixels, at most {MAX_PIXELS:,}")
    return _big_enough(image, name)


def _read_header(source: str | Path | bytes, name: str) -> Image.Image:
    try:
        formats = _check_parts(source)
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except ImageError:
        raise
    except StructureError as error:
        raise ImageError("too complex", f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too large", f"{name}: more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image", f"{name}; read are {', '.join(FORMATS)}") from error
    except Exception as error:  # a broken header can raise anything too
        raise ImageError("unreadable", f"{name}: {error}") from error
    return image


def _check_parts(source: str | Path | bytes) -> tuple[str, ...]:
    """Checks the parts of a file, and returns the formats that it may have."""
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        check_structure(file)
        start = file.read(12)
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIC_BRANDS:
        return FORMATS
    try:
        import pillow_heif
    except ImportError:
        raise ImageError("needs mien[heic]", "HEIC: pip install 'mien[heic]'") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    if np.issubdtype(pixels.dtype, np.floating) and pixels.size:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(
                "not an image",
                f"pixels are {pixels.dtype} from {low:g} to {high:g}; valid: uint8 to 255, or floats from 0 to 1",
            )
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ImageError(
            "not an image",
            f"pixels are {pixels.dtype} {pixels.shape}; valid: uint8, or floats from 0 to 1, (height, width, 3) or "
            "(height, width)",
        )
    if 0 in pixels.shape:
        raise ImageError("empty", f"pixels of shape {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _big_enough(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < MIN_SIDE:
        image.close()
        raise ImageError("too small", f"{name}: {image.width}x{image.height} pixels, at least {MIN_SIDE} a side")
    return image


def _reduce(image: Image.Image, scale: float) -> None:
    """Lets the decoder, where it can (JPEG), give a smaller image, at least `scale` times the full size."""
    if scale < 1:
        image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _lies_on_its_side(image) else (width, height)


def _lies_on_its_side(image: Image.Image) -> bool:
    """Whether the sides of `image.size` are to be swapped for the upright image."""
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Pillow has swapped the size of a TIFF already.
            stored = tuple(image.tag_v2.get(tag) for tag in _TIFF_SIZE)
            return image.size == stored and image.tag_v2.get(_EXIF_ORIENTATION) in (5, 6, 7, 8)
        return image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # a PNG's EXIF may stand behind its pixels, which are decoded then
        raise ImageError("truncated", str(error)) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            # Pillow clips 16 bits when it converts; the high byte is the picture.
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        if image.mode in ("I", "F"):
            raise ImageError("unsupported", "32 bits a pixel; valid: 8 or 16")
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        return image.convert("RGB")
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("too large", "no memory is left to decode it") from error
    except Exception as error:  # a broken file can raise anything in a decoder
        raise ImageError("truncated", str(error)) from error
