"""One PNG, JPEG, TIFF, BMP, GIF or PPM file to its native integers, or one clear refusal.

The plugins of Pillow are opened directly, by the file's first bytes: `Image.open` would try some forty
formats, and it warns instead of refusing when a header declares an absurd size.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import IO, Final

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from medgraft.errors import DataError
from medgraft.types import ImageFacts

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Colour", "grey_if_equal", "read_facts", "read_image", "read_palette"]

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"}
)
MAX_PIXELS: Final = 89_478_485
"""Most pixels (height × width) a header may declare, as in Pillow: 256 MiB at 3 bytes a pixel."""

FORMATS: Final[dict[bytes, type[ImageFile.ImageFile]]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"II*\x00": TiffImageFile,
    b"MM\x00*": TiffImageFile,
    b"II+\x00": TiffImageFile,
    b"MM\x00+": TiffImageFile,
    b"BM": BmpImageFile,
    b"GIF8": GifImageFile,
    b"P5": PpmImageFile,
    b"P6": PpmImageFile,
}
STRANGERS: Final[dict[bytes, str]] = {
    b"RIFF": "a WebP or another RIFF file: convert it to PNG",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000: convert it to 16-bit PNG",
    b"%PDF": "a PDF: export its pictures as PNG",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b": "a gzip archive (perhaps a NIfTI volume): unpack it or export slices as PNG",
    b"<": "a web page or XML (a failed download?): fetch the file again",
}
# What Pillow's readers let through on damaged bytes; UserWarning is for callers that turn warnings into
# errors.
BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    RuntimeError,
    UserWarning,
    struct.error,
    zlib.error,
)
ORIENTATION: Final = 274
BITS_PER_SAMPLE: Final = 258
PHOTOMETRIC: Final = 262
COLOUR_MAP: Final = 320
SAMPLE_FORMAT: Final = 339
WHITE_IS_ZERO: Final = 0
SIGNED: Final = 2
_TIFF_KINDS: Final = {0: "grey (white is zero)", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_TIFF_NUMBERS: Final = {1: "unsigned", SIGNED: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
WIDE_MODES: Final = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})


def read_image(path: str | Path, *, keeps_numbers: bool = False) -> tuple[np.ndarray, ImageFacts]:
    """Pixels of one file in their stored integers, and what decoding found.

    8-bit files give uint8, deeper ones uint16; nothing is rescaled. Palettes are looked up, EXIF
    orientation is applied, an RGB file with three equal channels becomes grey, 1-bit becomes 0 and 255.
    Transparent pixels are laid over black, the background of most medical images; an opaque alpha channel
    is dropped.

    Args:
        path: PNG, JPEG, TIFF (one page) or BMP.
        keeps_numbers: Whether a picture with a palette gives the numbers of its entries (masks), not its colours.

    Returns:
        (H, W) or (H, W, 3) uint8 or uint16, and the facts after orientation.

    Raises:
        DataError: The file is missing, empty, truncated, too large, no image, or stored in a way that has no
            lossless reading as 8- or 16-bit integers (float TIFF, several pages, 16-bit colour TIFF).

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "x.png"
        ...     Image.fromarray(np.array([[0, 4095]], np.uint16)).save(file)
        ...     pixels, facts = read_image(file)
        >>> pixels.tolist(), str(pixels.dtype), facts.bits, facts.mode
        ([[0, 4095]], 'uint16', 16, 'I;16')
    """
    path = Path(path)
    with _open(path) as stream:
        image = _header(stream, path)
        bits = _bits(image, path)
        mode = image.mode if bits == 8 or image.mode in WIDE_MODES else f"{image.mode};16"
        try:
            pixels = (
                _deep_png(path)
                if mode.endswith(";16") and image.mode != "I;16"
                else _pixels(image, path, keeps_numbers)
            )
            orientation = int(image.getexif().get(ORIENTATION, 1))
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{path}: not enough memory for {image.width}×{image.height} pixels.") from error
        except BROKEN as error:
            message = f"{path}: damaged or truncated ({_reason(error)}). Fetch the file again or leave it out."
            raise DataError(message) from error
    pixels = np.ascontiguousarray(_upright(grey_if_equal(pixels), orientation))
    channels = 1 if pixels.ndim == 2 else 3
    height, width = pixels.shape[:2]
    stored = _stored_bits(image, bits) if bits == 16 else 8
    return pixels, ImageFacts(height=height, width=width, channels=channels, bits=bits, mode=mode, stored_bits=stored)


def read_facts(path: str | Path) -> ImageFacts:
    """What the header alone declares; no pixel is decoded, so RGB counts as 3 channels even when it is grey.

    Args:
        path: As in `read_image`.

    Raises:
        DataError: As in `read_image`, as far as the header shows it.
    """
    path = Path(path)
    with _open(path) as stream:
        image = _header(stream, path)
        channels = 1 if image.mode in WIDE_MODES or image.mode in {"1", "L", "LA"} else 3
        bits = _bits(image, path)
        stored = _stored_bits(image, bits) if bits == 16 else 8
        return ImageFacts(
            height=image.height, width=image.width, channels=channels, bits=bits, mode=image.mode, stored_bits=stored
        )


def read_palette(path: str | Path) -> tuple[tuple[Colour, ...] | None, int]:
    """Colour of each entry of a picture's palette, None where it has none; and its bits, 1 to 16.

    Args:
        path: As in `read_image`.

    Raises:
        DataError: As in `read_image`, as far as the header shows it.
    """
    path = Path(path)
    with _open(path) as stream:
        image = _header(stream, path)
        bits = _stored_bits(image, _bits(image, path))
        if image.mode != "P":
            return None, bits
        try:
            image.load()
            entries = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        except BROKEN as error:
            raise DataError(f"{path}: damaged or truncated ({_reason(error)}). Fetch the file again.") from error
        colours = entries if (mended := _short_colours(image)) is None else mended
        # Entries that a file uses and does not define are black.
        padded = np.pad(colours, ((0, max(0, 256 - len(colours))), (0, 0)))
        return tuple((int(red), int(green), int(blue)) for red, green, blue in padded), bits


def _open(path: Path) -> IO[bytes]:
    if path.is_dir():
        raise DataError(f"{path}: expected an image file, got a folder. Name the images inside it.")
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}). Check the path and its rights.") from error


def _header(stream: IO[bytes], path: Path) -> ImageFile.ImageFile:
    magic = stream.read(132)
    stream.seek(0)
    if not magic:
        raise DataError(f"{path}: the file is empty (0 bytes). Fetch it again or leave it out.")
    plugin = next((kind for start, kind in FORMATS.items() if magic.startswith(start)), None)
    if plugin is None:
        raise DataError(f"{path}: expected PNG, JPEG, TIFF, BMP, GIF or PPM, got {_stranger(magic)}.")
    try:
        image = plugin(stream)
        pages = int(getattr(image, "n_frames", 1))
    except BROKEN as error:
        if plugin is TiffImageFile and (kind := _tiff_kind(stream)):
            raise DataError(f"{path}: a TIFF of {kind}, which is not read. Save it as 16-bit grey PNG.") from error
        message = f"{path}: the header is damaged or truncated ({_reason(error)}). Fetch the file again."
        raise DataError(message) from error
    if image.width * image.height > MAX_PIXELS:
        message = f"{path}: declares {image.width}×{image.height} pixels, over the limit of {MAX_PIXELS:,}"
        raise DataError(f"{message} (an image bomb, or a slide to be tiled first).")
    if pages > 1:
        raise DataError(f"{path}: holds {pages} pages or frames, expected one. Save each as a file of its own.")
    return image


def _tiff_kind(stream: IO[bytes]) -> str:
    """What the tags of a TIFF say of its numbers, in words; empty where they cannot be read."""
    try:
        stream.seek(0)
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        bits, photometric = np.atleast_1d(tags.get(BITS_PER_SAMPLE, 1)), int(tags.get(PHOTOMETRIC, 1))
        numbers = _TIFF_NUMBERS.get(int(np.atleast_1d(tags.get(SAMPLE_FORMAT, 1))[0]), "undefined")
    except BROKEN:
        return ""
    kind = _TIFF_KINDS.get(photometric, f"photometric interpretation {photometric}")
    order = " in big-endian order" if tags.prefix == b"MM" else ""
    return f"{int(bits.max())} {numbers} bits, {kind}{order}"


def _stranger(magic: bytes) -> str:
    if magic[128:132] == b"DICM":
        return "a DICOM file, which is read as a case"
    for start, words in STRANGERS.items():
        if magic.lstrip().startswith(start):
            return words
    return f"a file that starts with {magic[:8]!r}: convert it to PNG"


def _bits(image: ImageFile.ImageFile, path: Path) -> int:
    """Bits of a picture, 8 or 16, by its own declaration: Pillow squashes 16-bit colour to 8 without a word."""
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point pixels, which have no fixed range. Save it as 16-bit PNG.")
    if isinstance(image, TiffImageFile):
        depth = _stored_bits(image, 0)
        if depth <= 8 and SIGNED in np.atleast_1d(image.tag_v2.get(SAMPLE_FORMAT, 1)):
            raise DataError(f"{path}: holds signed 8-bit pixels. Shift them by 128 and save as PNG.")
        if depth > 8 and image.mode not in WIDE_MODES:
            raise DataError(f"{path}: {depth}-bit colour TIFF would be squashed to 8 bits. Save it as 16-bit PNG.")
        return 16 if depth > 8 else 8
    if isinstance(image, BmpImageFile) and image.mode == "1" and not _is_one_bit(path):
        # Pillow takes the bytes for bits where the palette is black and white.
        raise DataError(f"{path}: a BMP of more bits than its two colours need is not read right. Save it as PNG.")
    if isinstance(image, PngImageFile):
        return 16 if any(";16" in str(tile.args) for tile in image.tile) else 8
    return 16 if image.mode in WIDE_MODES else 8


def _is_one_bit(path: Path) -> bool:
    """Whether the header of a BMP says one bit a pixel."""
    with path.open("rb") as stream:
        head = stream.read(30)
    is_old = int.from_bytes(head[14:18], "little") == 12
    return int.from_bytes(head[24:26] if is_old else head[28:30], "little") == 1


def _pixels(image: ImageFile.ImageFile, path: Path, keeps_numbers: bool) -> np.ndarray:
    """Pixels of an opened picture without loss; what is transparent is laid over black.

    Args:
        image: The picture, of which only the header was read.
        path: Its file, for errors.
        keeps_numbers: Whether a palette gives the numbers of its entries, not its colours.
    """
    image.load()
    if image.mode == "P" and keeps_numbers:
        return np.asarray(image)
    if image.mode in WIDE_MODES:
        return _as_uint16(_black_is_zero(np.asarray(image), image, path), path)
    if image.mode == "P" and (colours := _short_colours(image)) is not None:
        return np.asarray(colours[np.asarray(image)])
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.has_transparency_data:
        image_alpha: Image.Image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, image_alpha).convert("RGB"))
    if image.mode in {"RGB", "RGBX", "P", "CMYK", "YCbCr"}:
        return np.asarray(image.convert("RGB"))
    raise DataError(f"{path}: pixel format {image.mode} cannot be read without loss. Save it as RGB or grey PNG.")


def _short_colours(image: ImageFile.ImageFile) -> np.ndarray | None:
    """(N, 3) uint8 colours of a TIFF whose palette has 8 bits where the format has 16, as old programs wrote it."""
    if not isinstance(image, TiffImageFile) or max(image.tag_v2.get(COLOUR_MAP, (256,))) >= 256:
        return None
    return np.array(image.tag_v2[COLOUR_MAP], dtype=np.uint8).reshape(3, -1).T


def _stored_bits(image: ImageFile.ImageFile, bits: int) -> int:
    """Bits of a number in the file: fewer than those it is handed on with, where Pillow spreads them.

    Args:
        image: The picture, of which only the header was read.
        bits: 8 or 16.
    """
    if isinstance(image, TiffImageFile):
        return int(np.atleast_1d(image.tag_v2.get(BITS_PER_SAMPLE, 1)).max())
    if image.mode == "1":
        return 1
    if isinstance(image, PngImageFile) and image.tile:
        few = {"L;2": 2, "L;4": 4}
        return few.get(str(image.tile[0].args), bits)
    return bits


def _black_is_zero(values: np.ndarray, image: ImageFile.ImageFile, path: Path) -> np.ndarray:
    """Deep pixels of a TIFF in which white is zero, turned round: Pillow turns only those of 8 bits.

    Args:
        values: As stored.
        image: The picture, with its tags.
        path: Its file, for the error.
    """
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(PHOTOMETRIC, 1) != WHITE_IS_ZERO:
        return values
    if np.atleast_1d(image.tag_v2.get(BITS_PER_SAMPLE, 1)).tolist() != [16]:
        raise DataError(f"{path}: a deep TIFF in which white is zero, of other than 16 bits. Save it as 16-bit PNG.")
    return np.asarray(65535 - values)


def _as_uint16(values: np.ndarray, path: Path) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        message = f"{path}: pixels from {low} to {high}, expected 0 to 65535"
        raise DataError(f"{message}. Shift or scale them with the same rule for every image, save as 16-bit PNG.")
    return values.astype(np.uint16)


def _deep_png(path: Path) -> np.ndarray:
    """Pixels of a PNG of 16-bit colour, or 16-bit grey with alpha, of which Pillow keeps the upper bytes only."""
    data = path.read_bytes()
    colour_type = data[25]
    if colour_type == 4:
        # Grey + alpha of 16 bits has the same bytes per pixel, and so the same filters, as 8-bit RGBA.
        header = data[12:24] + b"\x08\x06" + data[26:29]
        relabelled = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        quads = np.asarray(_loaded(PngImageFile(io.BytesIO(relabelled)))).astype(np.uint16)
        stored = quads[..., 0::2] << 8 | quads[..., 1::2]
    else:
        upper = np.asarray(_loaded(PngImageFile(io.BytesIO(data)))).astype(np.uint16)
        image = PngImageFile(io.BytesIO(data))
        codec, extents, offset, raw_mode = image.tile[0]
        # PNG is big-endian; read as little-endian the unpacker hands out the other byte of each pair.
        image.tile = [type(image.tile[0])(codec, extents, offset, str(raw_mode).replace(";16B", ";16L"))]
        stored = upper << 8 | np.asarray(_loaded(image)).astype(np.uint16)
    if stored.shape[2] in (2, 4):
        stored = np.rint(stored[..., :-1] * (stored[..., -1:] / 65535)).astype(np.uint16)
    return stored[..., 0] if stored.shape[2] == 1 else stored


def _loaded(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    image.load()
    return image


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """(H, W) of an RGB image whose three channels are equal; any other image as it is.

    Args:
        pixels: (H, W) or (H, W, 3).

    Examples:
        >>> grey_if_equal(np.full((2, 2, 3), 7, np.uint8)).shape
        (2, 2)
    """
    if pixels.ndim == 2:
        return pixels
    # A sparse look settles nearly every colour image without touching all of it.
    for view in (pixels[::16, ::16], pixels):
        if not (np.array_equal(view[..., 0], view[..., 1]) and np.array_equal(view[..., 0], view[..., 2])):
            return pixels
    return pixels[..., 0]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation 2 to 8 undone; anything else is left as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
