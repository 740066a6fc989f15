"""Training of context codecs.

layers   layers that are trained as floats and become integers
nets     the two networks
items    what they learn from
fit      the loop
build    the codec's folder
"""
