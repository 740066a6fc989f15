"""What says which parts a store has, made again where it is lost.

manifest   _manifest.json, from all of the data
segments   the segments that it lists, from other snapshots or from their data
"""
