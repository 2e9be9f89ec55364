"""LiteRT with XNNPACK: float32, and int8 weights and activations by ai-edge-quantizer."""

from typing import Any

from scripts.benchmark.peers.base import Job, Peer, Run, register

MODEL = "model.tflite"
VARIANTS = ("float32", "int8", "int8 mixed")

# What XNNPACK has in float only, and the parts of a normalisation: in int8 these run in plain C++.
LEFT_IN_FLOAT = (
    "BATCH_MATMUL",
    "SOFTMAX",
    "GELU",
    "MEAN",
    "SUB",
    "SUM",
    "SQUARED_DIFFERENCE",
    "RSQRT",
)


def _prepare(job: Job) -> None:
    import litert_torch  # type: ignore[import-not-found]
    import torch

    float_model = str(job.folder / "float.tflite")
    network = torch.export.load(job.source.program).module()
    _drop_expansions(network)
    litert_torch.convert(network, (torch.from_numpy(job.source.image()),)).export(float_model)
    if job.variant == "float32":
        (job.folder / "float.tflite").rename(job.folder / MODEL)
        return
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]

    quantize = quantizer.Quantizer(float_model)
    quantize.load_quantization_recipe(recipe.static_wi8_ai8())
    for operator in LEFT_IN_FLOAT if job.variant.endswith("mixed") else ():
        quantize.update_quantization_recipe(".*", operator, algorithm_key="no_quantize")
    ((name, signature),) = Interpreter(float_model).get_signature_list().items()
    feeds = [{signature["inputs"][0]: image[None]} for image in job.source.images()]
    result = quantize.quantize(quantize.calibrate({name: feeds}))
    (job.folder / MODEL).write_bytes(result.quantized_model)


def _drop_expansions(network: Any) -> None:
    """Remove what products and sums do by themselves; the converter gets its layout wrong."""
    for node in list(network.graph.nodes):
        if str(node.target).startswith("aten.expand") and all(map(_broadcasts, node.users)):
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
    network.recompile()


def _broadcasts(node: Any) -> bool:
    return str(node.target) in ("aten.mul.Tensor", "aten.add.Tensor")


def _load(job: Job) -> Run:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(job.folder / MODEL), num_threads=job.threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    image = job.source.image()
    if entry["dtype"] == np.int8:
        scale, zero = entry["quantization"]
        image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(entry["index"], image)
    return interpreter.invoke


register(
    Peer(
        "litert",
        VARIANTS,
        _prepare,
        _load,
        # torch first and by version: any other would bring its libraries for GPUs
        packages=("torch==2.13.0", "litert-torch"),
        device_packages=("ai-edge-litert",),
        device_variants=VARIANTS,
    )
)
