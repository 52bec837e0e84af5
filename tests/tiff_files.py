"""TIFF files that the tests write tag by tag."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

_CODES = {"H": 3, "L": 4}


def tiff(
    path: Path,
    data: bytes,
    sides: tuple[int, int],
    *,
    bits: Sequence[int] = (8,),
    photometric: int = 1,
    order: str = "<",
    tags: Mapping[int, Sequence[int]] | None = None,
) -> Path:
    """One strip, uncompressed.

    Args:
        path: The file.
        data: Its pixels.
        sides: Height and width.
        bits: Of each sample.
        photometric: PhotometricInterpretation.
        order: ``<`` or ``>``.
        tags: Further ones, 16 bits each.
    """
    height, width = sides
    entries = {
        256: ("H", [width]), 257: ("H", [height]), 258: ("H", list(bits)), 259: ("H", [1]),
        262: ("H", [photometric]), 273: ("L", [0]), 277: ("H", [len(bits)]), 278: ("H", [height]),
        279: ("L", [len(data)]), **{tag: ("H", list(values)) for tag, values in (tags or {}).items()},
    }  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    # What does not fit into an entry lies behind them, in their order.
    behind = b"".join(packed for _, entry in sorted(entries.items()) if len(packed := _packed(order, *entry)) > 4)
    entries[273] = ("L", [start + len(behind)])
    content, place = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}LH", 8, len(entries)), start
    for tag, (kind, values) in sorted(entries.items()):
        packed = _packed(order, kind, values)
        content += struct.pack(f"{order}HHL", tag, _CODES[kind], len(values))
        content += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}L", place)
        place += len(packed) if len(packed) > 4 else 0
    path.write_bytes(content + struct.pack(f"{order}L", 0) + behind + data)
    return path


def _packed(order: str, kind: str, values: Sequence[int]) -> bytes:
    return struct.pack(f"{order}{len(values)}{kind}", *values)
