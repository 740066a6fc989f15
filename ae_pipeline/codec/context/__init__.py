"""Exact and error-bounded codecs: small integer networks that tell how likely each value is, and an entropy coder.

A *context* is what is known before a value is decoded: its neighbours above and to the left, and where it lies. Two
networks turn contexts into probabilities, and an arithmetic coder writes down what they did not foresee. Both sides
compute the same integers, so that every value comes back as it was.

grid        values as indices of a grid, within an error
words       contexts: eight neighbours in one 64-bit word
networks    the integer networks
chances     logits as shares of 2 ** 15, exactly
calls       the shares of all symbols, as the entropy coder takes them
rans        the entropy coder
masks       first pass: which values are zero
values      second pass: what the others are
restore     values moved within their bins, for a smaller mean error
streams     a block of rows as bytes, and back
options     what codec.json says of one
saving      its folder, written and read
known       the coders that this process has

Design and figures: docs/exact.md.
"""
