"""Executed instructions: read the emulator's block profile, count by library and by class."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.device.llvm import disassemble

_VECTOR_REGISTER = r"\b[vqdshb]\d+\b"

# The first class whose pattern matches the start of "mnemonic operands" counts.
INSTRUCTION_CLASSES: dict[str, re.Pattern[str]] = {
    "dot product": re.compile(r"(s|u|us|su)dot\b"),
    "matrix product": re.compile(r"(s|u|us)mmla\b"),
    "vector multiply": re.compile(r"(sq\w*|[su]?)m(ul|la|ls)\w*\s+[vdshb]\d"),
    "vector load": re.compile(rf"ld\S*\s[^\[]*{_VECTOR_REGISTER}"),
    "vector store": re.compile(rf"st\S*\s[^\[]*{_VECTOR_REGISTER}"),
    "scalar load": re.compile(r"(ld|prf)"),
    "scalar store": re.compile(r"st"),
    "branch": re.compile(r"(b|bl|br|blr|ret|cbn?z|tbn?z|b\.\w+)(\s|$)"),
    # fmov only moves bits between registers; bfi, bfxil and bfm are integer
    "floating point": re.compile(r"(f(?!mov)|[su]cvtf|bf(dot|mmla|mlal|cvt))"),
    "other vector": re.compile(rf".*{_VECTOR_REGISTER}"),
    "other scalar": re.compile(r""),
}


@dataclass(frozen=True)
class Block:
    """A straight run of instructions.

    Attributes:
        library: file name of the shared object that holds it.
        runs: how often it was executed.
        words: its A64 instructions, each 8 hexadecimal digits.
    """

    library: str
    runs: int
    words: tuple[str, ...]

    @property
    def executed(self) -> int:
        """Instructions executed in all its runs."""
        return self.runs * len(self.words)


@dataclass(frozen=True)
class BlockProfile:
    """What `inferences` runs of a library executed, the libraries that it calls included."""

    inferences: int
    blocks: tuple[Block, ...]

    def of(self, library: str) -> tuple[Block, ...]:
        """The blocks of one shared object, by file name."""
        return tuple(block for block in self.blocks if block.library == library)

    def instructions(self) -> dict[str, float]:
        """Executed instructions per inference of each shared object, most first.

        Only a library's own count is comparable between emulated CPUs: the C library chooses among
        its variants by CPU.
        """
        counts: Counter[str] = Counter()
        for block in self.blocks:
            counts[block.library] += block.executed
        return {name: count / self.inferences for name, count in counts.most_common()}


def parse_profile(text: str, inferences: int) -> BlockProfile:
    """Read what ``dev.icount`` returns: blocks, their total, and the memory map of the process.

    Args:
        text: lines ``address runs word...``, ``total n``, ``maps`` and those of /proc/self/maps.
        inferences: runs of the library that were counted.

    Raises:
        ValueError: the text is cut off.
    """
    profile, _, maps = text.partition("maps\n")
    segments = []
    for line in maps.splitlines():
        fields = line.split()
        first, last = (int(address, 16) for address in fields[0].split("-"))
        segments.append((first, last, PurePosixPath(fields[5]).name if len(fields) > 5 else "?"))

    def library_at(address: int) -> str:
        return next((name for first, last, name in segments if first <= address < last), "?")

    blocks, total = [], None
    for line in profile.splitlines():
        head, runs, *words = line.split()
        if head == "total":
            total = int(runs)
        else:
            blocks.append(Block(library_at(int(head, 16)), int(runs), tuple(words)))
    if total is None or total != sum(block.executed for block in blocks):
        raise ValueError("the block profile is incomplete: its total does not match its blocks")
    return BlockProfile(inferences, tuple(blocks))


def classify(instruction: str) -> str:
    """The class of one disassembled instruction, a key of `INSTRUCTION_CLASSES`."""
    return next(name for name, form in INSTRUCTION_CLASSES.items() if form.match(instruction))


def count_classes(profile: BlockProfile, library: str) -> dict[str, float]:
    """Executed instructions of one shared object per inference and class, most first.

    Raises:
        UserError: LLVM's disassembler is not installed.
    """
    blocks = profile.of(library)
    text = disassemble({word for block in blocks for word in block.words})
    counts: Counter[str] = Counter()
    for block in blocks:
        for word in block.words:
            counts[classify(text[word])] += block.runs
    return {name: count / profile.inferences for name, count in counts.most_common()}
