"""How different a batch is from the data that the codec was trained on.

measure          a batch of a store against the reference
fit              the reference and its thresholds, from held-out rows
reference        both in a file, drift_reference.json
"""
