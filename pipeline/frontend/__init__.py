"""From the quantized torch graph to Relax."""
