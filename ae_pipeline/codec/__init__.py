"""Samples in, integers out, and back.

codec            Codec: encode, decode, save, load
header           codec.json and the fingerprint
arithmetic       how a codec computes: in floats or in integers
integer          layers of integers, exact on every machine
quantiser        latents to integers
devices          CPU, CUDA and threads
"""
