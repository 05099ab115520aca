"""Large files in the layouts of Nion Swift and DigitalMicrograph, made without holding them in memory."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ABOUT = {
    "title": "a large scan",
    "is_sequence": False,
    "collection_dimension_count": 2,
    "datum_dimension_count": 1,
    "dimensional_calibrations": [
        {"offset": 0.0, "scale": 0.05, "units": "nm"},
        {"offset": 0.0, "scale": 0.05, "units": "nm"},
        {"offset": -0.1005, "scale": 0.001, "units": "eV"},
    ],
    "metadata": {"hardware_source": {"autostem": {"EHT": 60000.0}}},
}


def write_ndata1(path: Path, shape: tuple[int, int, int], rows: Iterator[np.ndarray] | None = None) -> Path:
    """Write a stored zip with `data.npy` (uint16) and `metadata.json`; without `rows` a hole of the file is the data."""
    text = repr({"descr": "<u2", "fortran_order": False, "shape": shape}).encode()
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"
    about = json.dumps(ABOUT).encode()
    size = len(head) + 2 * int(np.prod(shape, dtype=np.int64))
    directory = []
    with path.open("wb") as file:
        for name, n in ((b"data.npy", size), (b"metadata.json", len(about))):
            place = file.tell()
            extra = struct.pack("<HHQQ", 1, 16, n, n)
            crc_place = place + 14
            file.write(struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), 20))
            file.write(name + extra)
            crc = 0
            if name == b"metadata.json":
                file.write(about)
                crc = zlib.crc32(about)
            else:
                file.write(head)
                crc = zlib.crc32(head)
                for row in rows or ():
                    block = np.ascontiguousarray(row, dtype="<u2").tobytes()
                    crc = zlib.crc32(block, crc)
                    file.write(block)
                if rows is None and n < 100_000_000:  # of larger holes nobody asks for the checksum
                    crc = zlib.crc32(bytes(n - len(head)), crc)
                file.seek(crc_place + 16 + len(name) + 20 + n)
            end = file.tell()
            file.seek(crc_place)
            file.write(struct.pack("<I", crc))
            file.seek(end)
            central = struct.pack("<HHQQQ", 1, 24, n, n, place)
            fixed = (0x02014B50, 45, 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name), 28, 0, 0, 0, 0, 2**32 - 1)
            directory.append(struct.pack("<IHHHHHHIIIHHHHHII", *fixed) + name + central)
        start = file.tell()
        file.write(b"".join(directory))
        length = file.tell() - start
        end = file.tell()
        file.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 2, 2, length, start))
        file.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 2, 2, length, 2**32 - 1, 0))
    return path


def write_dm4(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write a spectrum image of unsigned 16-bit numbers as DigitalMicrograph 4 does; the data are a hole of the file.

    DigitalMicrograph's first axis is the fastest: column, row, energy.
    """
    rows, columns, channels = shape
    steps = [(0.05, "nm"), (0.05, "nm"), (0.001, "eV")]
    calibrations = [
        (None, [("Origin", 0.0 if unit == "nm" else 100.0), ("Scale", scale), ("Units", unit)]) for scale, unit in steps
    ]
    data = [
        ("Calibrations", [("Dimension", calibrations)]),
        ("Data", np.broadcast_to(np.uint16(0), (rows * columns * channels,))),
        ("DataType", np.uint32(10)),
        ("Dimensions", [(None, np.uint32(columns)), (None, np.uint32(rows)), (None, np.uint32(channels))]),
        ("PixelDepth", np.uint32(2)),
    ]
    tags = [("Meta Data", [("Format", "Spectrum image"), ("Signal", "EELS")])]
    image = [("ImageData", data), ("ImageTags", tags), ("Name", "a large scan")]
    with path.open("wb") as file:
        file.write(struct.pack(">IQI", 4, 0, 1))
        _write_group(file, [("ImageList", [(None, image)])])
        file.write(bytes(8))
        size = file.tell()
        file.seek(4)
        file.write(struct.pack(">Q", size - 24))
    return path


_TYPES = {"u2": 4, "u4": 5, "f8": 7}


def _write_group(file: Any, entries: list[tuple[str | None, Any]]) -> None:
    file.write(struct.pack(">BBQ", 1, 0, len(entries)))
    for name, value in entries:
        label = (name or "").encode()
        file.write(struct.pack(">BH", 20 if isinstance(value, list) else 21, len(label)) + label)
        place = file.tell()
        file.write(bytes(8))
        if isinstance(value, list):
            _write_group(file, value)
        else:
            _write_value(file, value)
        end = file.tell()
        file.seek(place)
        file.write(struct.pack(">Q", end - place - 8))
        file.seek(end)


def _write_value(file: Any, value: Any) -> None:
    if isinstance(value, str):
        value = np.frombuffer(value.encode("utf-16-le"), dtype="<u2")
    value = np.asarray(value)
    code = _TYPES[value.dtype.str[1:]]
    if value.ndim == 0:
        file.write(b"%%%%" + struct.pack(">QQ", 1, code) + value.astype(value.dtype.newbyteorder("<")).tobytes())
        return
    file.write(b"%%%%" + struct.pack(">QQQQ", 3, 20, code, value.size))
    if value.strides == (0,):
        file.truncate(file.tell() + value.nbytes)
        file.seek(0, 2)
    else:
        file.write(value.tobytes())
