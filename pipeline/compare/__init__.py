"""Methods of quantization side by side, on the same photos.

cell          one model, method and number of bits, and what is found out about it
models        which models are compared, from arguments or from a list in a file
sweep         all cells of a comparison, and which of them are still to do
store         results as files: a sweep that was killed goes on
run_cell      from a cell to its result
one_machine   cells in order, in this process
cluster       cells as tasks of a Ray cluster
paired        statistics of differences on the same photos
tables        results as rows
report        rows as Markdown, CSV and HTML
"""
