"""ONNX Runtime: float32, and int8 by its own static quantization in QDQ form."""

from scripts.benchmark.peers.base import Job, Peer, Run, register

PRODUCTS = ["Conv", "MatMul", "Gemm"]


def _prepare(job: Job) -> None:
    import shutil

    if job.variant == "float32":
        shutil.copy(job.source.onnx, job.folder / "model.onnx")
        return
    from onnxruntime import quantization  # type: ignore[import-not-found]
    from onnxruntime.quantization import shape_inference  # type: ignore[import-not-found]

    cleaned = job.folder / "cleaned.onnx"
    shape_inference.quant_pre_process(str(job.source.onnx), str(cleaned), skip_symbolic_shape=True)
    signed = "signed" in job.variant
    quantization.quantize_static(
        str(cleaned),
        str(job.folder / "model.onnx"),
        _Images(job),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=PRODUCTS if "products" in job.variant else None,
    )


class _Images:
    """Calibration images in the form that ``quantize_static`` reads."""

    def __init__(self, job: Job) -> None:
        self._images = iter(job.source.images())

    def get_next(self) -> dict[str, object] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image[None]}


def _load(job: Job) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(job.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": job.source.image()}
    return lambda: session.run(None, feed)


register(
    Peer(
        "onnxruntime",
        ("float32", "int8", "int8 products"),
        _prepare,
        _load,
        packages=("onnxruntime", "onnx", "sympy"),
        device_packages=("onnxruntime",),
        device_variants=("float32", "int8", "int8 signed", "int8 signed products"),
    )
)
