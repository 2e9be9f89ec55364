"""OpenVINO: float32, bfloat16, and int8 by NNCF's post-training quantization."""

from scripts.benchmark.peers.base import Job, Peer, Run, register

MODEL = "model.xml"


def _prepare(job: Job) -> None:
    import openvino  # type: ignore[import-not-found]

    model = openvino.Core().read_model(job.source.onnx)
    if job.variant.startswith("int8"):
        import nncf  # type: ignore[import-not-found]

        images = [image[None] for image in job.source.images()]
        model = nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
        )
    openvino.save_model(model, job.folder / MODEL, compress_to_fp16=False)


def _load(job: Job) -> Run:
    import openvino

    precision = "bf16" if "bf16" in job.variant else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the whole process is pinned
    }
    request = (
        openvino.Core().compile_model(job.folder / MODEL, "CPU", settings).create_infer_request()
    )
    request.set_input_tensor(openvino.Tensor(job.source.image()))
    return request.infer


register(
    Peer(
        "openvino",
        ("float32", "bf16", "int8", "int8 bf16"),
        _prepare,
        _load,
        packages=("openvino", "nncf"),
    )
)
