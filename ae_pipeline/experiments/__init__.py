"""Which codec to take: trials beside the pipeline.

sweep/           trainings of many sizes, and which one to take
benchmark/       our codecs beside all alternatives
presets/         settings of codecs by name
front            what the first two have in common: the front of few bits and small errors
"""
