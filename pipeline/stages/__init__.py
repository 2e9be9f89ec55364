"""The stations from a model and photos to libraries and figures, each cached by its inputs.

workspace         the cache, and the reporter that hears of every stage
sources           the code that each stage depends on
float_model       the timm model and its canonical graph, made when first needed
photos            what is calibrated on, what is validated on, and that they are apart
class_names       the names of the classes
quantize          quantizers from the calibration photos
lower             the integer module
build             one library per target
float_logits      logits of the validation photos, of the float model,
simulated_logits  of the quantized graph,
integer_logits    of the library on this host,
reference_logits  and of the NumPy reference of every operator

cache, integer_module and logits hold what several of them share.
"""
