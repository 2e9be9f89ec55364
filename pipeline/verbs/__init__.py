"""What the command line's verbs do, as functions: one file and one public function each.

deploy       from a model and photos to a measured artifact
quantize     from a model and photos to a quantized model
build        from a quantized model to an artifact
measure      an artifact on devices
compare      methods of quantization side by side
sensitivity  which layers of a quantized model cost accuracy
split        two lists that halve a folder of photos

choice and result hold what several of them take and give.
"""
