"""Commands that the how-tos print are ones that the program and the Makefile take; most are not run here."""

import re
import shlex
from pathlib import Path

import pytest

from phonon_eels.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("fit-components.md", "slurm.md", "without-shared-home.md", "workstation-gpu.md", "batch.md")


def _commands(page):
    text = (ROOT / "docs" / "howto" / page).read_text("utf-8")
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        for end in [k for k, word in enumerate([*words, "&&"]) if word == "&&"][::-1]:
            begin = max((k + 1 for k, word in enumerate(words[:end]) if word == "&&"), default=0)
            if words[begin:end]:
                yield words[begin:end]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_taken(page):
    commands = list(_commands(page))
    assert commands
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for words in commands:
        program = Path(words[0]).name
        if program == "phonon-eels":
            assert build_parser().parse_args(words[1:]).command is not None
        elif program == "make":
            assert next(word for word in words[1:] if "=" not in word) in targets
        elif program == "snakemake" and "--profile" in words:
            assert (ROOT / words[words.index("--profile") + 1] / "config.yaml").is_file()


def test_a_wrong_option_is_seen():
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["run", "scan.zspy", "--clusters", "slurm"])
