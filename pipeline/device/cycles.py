"""Estimated cycles of an executed-block profile on models of real cores.

A block's steady-state cycles by llvm-mca times the number of its runs, summed. That assumes hits in
the first-level cache, no branch misses, and no overlap between blocks: good for ranking kernels and
for noticing regressions, not for predicting milliseconds.
"""

import json
import subprocess
from collections.abc import Iterable

from pipeline.device.llvm import ATTRIBUTES, disassemble, find_llvm_tool
from pipeline.device.profile import Block, BlockProfile

# LLVM schedules A76, A78 and X1 by the A57's model: their server siblings stand in.
CORE_MODELS = {
    "cortex-a55": "cortex-a55",
    "cortex-a76": "neoverse-n1",
    "cortex-a78": "neoverse-n1",
    "cortex-x1": "neoverse-v1",
}
DEFAULT_CORES = ("cortex-a55", "cortex-a76", "cortex-x1")
ITERATIONS = 100
COVERAGE = 0.98  # of the executed instructions; the rest is scaled, not simulated


def estimate_cycles(
    profile: BlockProfile, library: str, cores: Iterable[str] = DEFAULT_CORES
) -> dict[str, float]:
    """Estimated cycles per inference that the code of one shared object takes.

    Args:
        profile: from `Program.count`.
        library: file name of the shared object.
        cores: keys of `CORE_MODELS`.

    Raises:
        UserError: llvm-mca 19 or newer is not installed.
    """
    blocks = hottest(profile.of(library), COVERAGE)
    text = disassemble({word for block in blocks for word in block.words})
    bodies = [[text[word] for word in block.words if text[word] != "?"] for block in blocks]
    total = sum(block.executed for block in profile.of(library))
    scale = total / max(1, sum(block.executed for block in blocks)) / profile.inferences
    runs = [block.runs for block in blocks]
    estimates: dict[str, float] = {}
    for core in cores:
        cycles = block_cycles(bodies, CORE_MODELS[core])
        estimates[core] = scale * sum(n * each for n, each in zip(runs, cycles, strict=True))
    return estimates


def hottest(blocks: Iterable[Block], coverage: float) -> list[Block]:
    """The fewest blocks that hold this share of the executed instructions, hottest first."""
    ordered = sorted(blocks, key=lambda block: block.executed, reverse=True)
    needed = coverage * sum(block.executed for block in ordered)
    chosen: list[Block] = []
    reached = 0
    for block in ordered:
        if reached >= needed:
            break
        chosen.append(block)
        reached += block.executed
    return chosen


def block_cycles(bodies: list[list[str]], model: str) -> list[float]:
    """Steady-state cycles of one run of each block on a core model of LLVM.

    Args:
        bodies: instructions of each block, as text.
        model: LLVM's name of the core.

    Raises:
        UserError: llvm-mca 19 or newer is not installed.
        RuntimeError: llvm-mca fails.
    """
    regions = []
    for index, body in enumerate(bodies):
        regions += [f"# LLVM-MCA-BEGIN {index}", *body, "# LLVM-MCA-END", ""]
    command = [find_llvm_tool("llvm-mca"), "-mtriple=aarch64", f"-mcpu={model}", "--json"]
    # an instruction that the core lacks is skipped; a call's target is counted as its own block
    command += [f"-mattr={ATTRIBUTES}", "-skip-unsupported-instructions=any", "-call-latency=1"]
    command += [f"-iterations={ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"]
    result = subprocess.run(command, input="\n".join(regions), capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"llvm-mca failed for {model}: {result.stderr.strip()[:500]}")
    cycles = {
        int(region["Name"]): region["SummaryView"]["TotalCycles"] / ITERATIONS
        for region in json.loads(result.stdout)["CodeRegions"]
    }
    # a block of unknown instructions only has no region
    return [cycles.get(index, 0.0) for index in range(len(bodies))]
