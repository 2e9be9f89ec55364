"""LLVM's disassembler and machine-code analyser, as found on the PATH."""

import re
import shutil
import subprocess
from collections.abc import Iterable

from pipeline.errors import UserError

MINIMUM_LLVM = 19  # older ones model every out-of-order Arm core as a Cortex-A57
NEWEST_LLVM = 40
ATTRIBUTES = "+v8.6a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"


def find_llvm_tool(name: str) -> str:
    """Path of the newest ``name-NN`` with NN >= 19, or of a plain ``name`` that is new enough.

    Args:
        name: ``llvm-mc`` or ``llvm-mca``.

    Raises:
        UserError: there is none.
    """
    for release in range(NEWEST_LLVM, MINIMUM_LLVM - 1, -1):
        if path := shutil.which(f"{name}-{release}"):
            return path
    if (path := shutil.which(name)) and _release(path) >= MINIMUM_LLVM:
        return path
    raise UserError(
        f"{name} of LLVM {MINIMUM_LLVM} or newer is not installed; run: apt-get install llvm-22."
    )


def disassemble(words: Iterable[str]) -> dict[str, str]:
    """Disassemble single A64 instructions.

    Args:
        words: 8 hexadecimal digits each.

    Returns:
        Text such as ``sdot v0.4s, v1.16b, v2.16b`` by word; ``?`` where LLVM knows none.

    Raises:
        UserError: the disassembler is not installed.
    """
    ordered = sorted(set(words))
    bytes_of = (" ".join(f"0x{word[i : i + 2]}" for i in (6, 4, 2, 0)) for word in ordered)
    command = [find_llvm_tool("llvm-mc"), "-disassemble", "-triple=aarch64"]
    command += [f"-mattr={ATTRIBUTES}"]
    result = subprocess.run(command, input="\n".join(bytes_of), capture_output=True, text=True)
    # one line of output per valid word, one warning with its line number per invalid one
    warnings = re.findall(r"^<stdin>:(\d+):\d+: warning", result.stderr, re.MULTILINE)
    invalid = {int(line) for line in warnings}
    lines = (line.strip() for line in result.stdout.splitlines())
    texts = (" ".join(line.split()) for line in lines if line and not line.startswith("."))
    return {
        word: "?" if line in invalid else next(texts) for line, word in enumerate(ordered, start=1)
    }


def _release(path: str) -> int:
    """Major version, 0 when it does not say."""
    text = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"LLVM version (\d+)", text)
    return int(match[1]) if match else 0
