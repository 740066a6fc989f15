"""Samples in, integers out, and back.

codec            Codec: encode, decode, save, load
header           codec.json and the fingerprint
arithmetic       how a codec computes: in floats or in integers
integer          layers of integers, exact on every machine
quantiser        latents to integers
weights          float weights as they lie in a file
devices          CPU, CUDA and threads
context/         exact and error-bounded codecs of pictures
tables/          the same of rows of tables
stream_head      what streams of both begin with
"""
