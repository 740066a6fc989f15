"""Training of codecs of tables.

plan       in which order fields are coded, and how each
codebook   cells for numbers that stand in clusters
nets       the network of a field while it is trained
fit        the networks, a field after the other
build      the codec's folder
"""
