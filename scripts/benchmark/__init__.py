"""PocketViT beside other runtimes, on this machine and on an emulated ARM phone.

setup     makes the peers' environments
host      milliseconds of every contestant, in turns, on one core
layers    where our library's time goes, layer by layer
arm       executed instructions and estimated cycles on emulated ARM
peers/    one file per runtime

See docs/benchmarks.md.
"""
