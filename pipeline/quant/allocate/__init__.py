"""Mixed precision: which products get how many bits.

settings  what a recipe says about it
groups    products whose bits go together
costs     bits that a group takes
scores    harm that a group does at some bits
select    one choice for every group, within a budget
run       all of it: from a graph and photos to the bits of every product
"""
