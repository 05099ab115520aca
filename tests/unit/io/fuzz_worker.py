"""Read mutated copies of a file, one after the other, in a process of its own: a crash of a C library shows there.

    python -m tests.unit.io.fuzz_worker FILE FOLDER FIRST LAST

prints one line per case; the last line is the peak memory in kilobytes beyond what was there before the first case.
"""

import logging
import random
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

SECONDS = 30
"""More than a file of some megabytes may take on a busy machine; a hang takes for ever."""
BAIT = (
    b"cos\nsystem\n(S'touch CANARY'\ntR.",
    b"__import__('os').system('touch CANARY')",
    b"_hspy_AxesManager_",
    b"_sig_",
    b"ast",
    b"_list_",
    b"_datetime_",
    b'"filters": [{"id": "pickle"}]',
    b"|O",
    b"<f8",
    b"-1",
    b"1e99",
    b"99999999999",
    b"\xff" * 8,
    bytes(8),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change, insert, remove or repeat some bytes, mostly where headers and tags are."""
    found = bytearray(content)

    def somewhere() -> int:
        n = max(len(found), 1)
        where = chance.randrange(4)
        if where == 0:
            return chance.randrange(n)
        near = min(n, chance.choice((64, 1024, 16384)))
        return chance.randrange(near) if where < 3 else n - 1 - chance.randrange(near)

    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place, what = somewhere(), chance.randrange(7)
        if what == 0:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            found[place : place + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x00\x00\x00\x80", chance.randbytes(4)))
        elif what == 2:
            del found[place : place + chance.randrange(1, 40)]
        elif what == 3:
            found[place:place] = found[somewhere() :][: chance.randrange(1, 40)]
        elif what == 4:
            bait = chance.choice(BAIT)
            found[place : place + len(bait)] = bait
        elif what == 5:
            found[place:place] = chance.choice(BAIT)
        else:
            found = found[: max(place, 1)]
    return bytes(found) or b"\0"


def parts_of(path: Path) -> list[Path]:
    """The files of a file: a `.zspy` is a folder of them; small ones are headers and come first."""
    return (
        [path]
        if path.is_file()
        else sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    )


def one_case(source: Path, folder: Path, seed: int) -> str:
    """Make a mutated copy and read it; return what came of it, or raise what should not have come."""
    from phonon_eels.errors import PhononEELSError
    from phonon_eels.io.vendor import load_signals, memory_bound

    chance = random.Random(f"{source.name} {seed}")
    path = folder / f"case{source.suffix}"
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    parts = parts_of(path)
    victim = parts[min(int(chance.expovariate(4.0 / len(parts))), len(parts) - 1)]
    victim.chmod(0o644)
    victim.write_bytes(mutated(victim.read_bytes(), chance))
    try:
        signals = load_signals(path, lazy=bool(seed % 2))
        for item in signals:
            assert len(item.axes) == item.data.ndim
            assert item.data.dtype.kind in "biuf"
            assert item.data.nbytes <= memory_bound(path), "larger than the declared bound"
            values = np.asarray(item.data)
            assert (values.shape, values.dtype) == (tuple(item.data.shape), item.data.dtype)
    except PhononEELSError as problem:
        if path.name not in str(problem):
            raise AssertionError(f"the message does not name the file: {problem}") from problem
        return "refused"
    except (OSError, ValueError, RuntimeError):
        # Lazy values that turn out damaged when they are read: the pipeline names the file then.
        if not seed % 2:
            raise
        return "damaged values"
    return "read"


def too_slow(*_: object) -> None:
    raise TimeoutError(f"a case took longer than {SECONDS} s")


def main(source: Path, folder: Path, first: int, last: int) -> None:
    import phonon_eels.io.inspect
    import phonon_eels.io.read  # noqa: F401 (what costs memory once must not count)
    from phonon_eels.io.vendor import load_signals

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    load_signals(source)
    signal.signal(signal.SIGALRM, too_slow)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, last):
        print(seed, end=" ", flush=True)
        signal.alarm(SECONDS)
        print(one_case(source, folder, seed), flush=True)
        signal.alarm(0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
