"""The stations from a model and photos to libraries and figures, each cached by its inputs.

workspace     the cache, and the reporter that hears of every stage
float_model   the timm model and its canonical graph, made when first needed
photos        what is calibrated on, what is validated on, and that they are apart
class_names   the names of the classes
quantize      quantizers from the calibration photos
lower         the integer module
build         one library per target
evaluate      logits of the validation photos at each of the three levels of truth
"""
