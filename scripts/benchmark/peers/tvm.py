"""Stock TVM Relax without tuning: legalized and fused by its "zero" pipeline."""

from scripts.benchmark.peers.base import Job, Peer, Run, register

LIBRARY = "model.so"


def _prepare(job: Job) -> None:
    import torch
    import tvm
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    program = torch.export.load(job.source.program)
    module = from_exported_program(program, keep_params_as_input=False)
    cpu = tvm.target.codegen.llvm_get_system_cpu()
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 1})
    with target:
        module = relax.get_pipeline("zero")(module)
    tvm.compile(module, target=target).export_library(str(job.folder / LIBRARY))


def _load(job: Job) -> Run:
    import tvm
    from tvm import relax

    library = tvm.runtime.load_module(str(job.folder / LIBRARY))
    machine = relax.VirtualMachine(library, tvm.cpu())
    image = tvm.runtime.tensor(job.source.image(), tvm.cpu())
    return lambda: machine["main"](image)


register(Peer("tvm", ("float32",), _prepare, _load))
