"""Which layers of a quantized network cost accuracy, and why.

layers    the layers of a QDQ graph: products, and tensors that are stored between them
switch    a QDQ graph with some of its layers back in float
local     SQNR of every layer's output, and the ranges of its activations, in one pass
ranges    what is gathered of one tensor
effects   what becomes of the logits when one layer alone is quantized, or left in float
result    what is found out, as data
files     JSON and CSV
pictures  a bar chart and a heat map
"""
