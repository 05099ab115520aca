"""Which compressions a `.zspy` may use: nothing in a file from elsewhere is unpickled."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phonon_eels.errors import InputFileError

# Codecs that only move bytes. numcodecs also has "pickle", which runs whatever the file tells it to.
_HARMLESS_CODECS = frozenset(
    (
        *("blosc", "zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "shuffle", "delta", "fixedscaleoffset", "quantize"),
        *("packbits", "bitround", "astype", "categorize", "crc32", "crc32c", "adler32", "fletcher32", "base64"),
        *("jenkins_lookup3", "vlen-utf8", "vlen-bytes", "vlen-array", "msgpack", "msgpack2", "json", "json2"),
    )
)


def refuse_unsafe_codecs(path: Path) -> None:
    """Look at every array description before anything is decoded: the pickle codec would run code from the file."""
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(name) for name in archive.namelist() if name.endswith((".zarray", ".zmetadata"))]
    else:
        texts = [part.read_bytes() for part in path.rglob(".zarray")]
        texts += [part.read_bytes() for part in path.rglob(".zmetadata")]
    if not texts:
        raise InputFileError(f"{path} holds no arrays; the copy is incomplete, copy the whole folder again")
    for text in texts:
        for codec in _codec_names(json.loads(text)):
            if codec not in _HARMLESS_CODECS:
                raise InputFileError(
                    f"{path} uses the codec {codec!r}, which may run code from the file; it is not opened: "
                    f"load it in HyperSpy if you trust it, and save it anew"
                )


def _codec_names(tree: Any) -> Iterator[str]:
    """Every codec named anywhere in an array description."""
    if isinstance(tree, dict):
        for name in ("compressor", "filters"):
            given = tree.get(name)
            for codec in given if isinstance(given, list) else [given]:
                if isinstance(codec, dict):
                    yield str(codec.get("id"))
        for branch in tree.values():
            yield from _codec_names(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from _codec_names(branch)
