"""Host side of PocketViT: models, data, quantization, import, build, devices, command line."""
