"""From quantize/dequantize around float operators to the integer dialect, one family per file."""
