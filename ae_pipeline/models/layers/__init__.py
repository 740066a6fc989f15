"""What models are made of, and how it is computed on a CPU.

linear      a linear layer that takes the faster matrix product
fused       layers, and what comes after them, in one pass over memory where no gradient is wanted
shuffling   space to depth and back, by a list of places
"""
