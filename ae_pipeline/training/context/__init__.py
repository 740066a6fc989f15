"""Training of context codecs.

layers   layers that are trained as floats and become integers
nets     the two networks
items    what they learn from
course   the training of one of them
abreast  the training of both, side by side
fit      all of it
build    the codec's folder
origin   what codec.json says of it
tables/  the same for rows of tables
"""
