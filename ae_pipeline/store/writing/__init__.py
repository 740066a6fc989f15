"""A store is written: parts, codec, manifest, commit.

encoding         a new store
appending        a store that grows: one append, one snapshot
commit           the steps of both, in a folder and at a URL: codec, parts, manifest
checks           what a data set must be to go into a store
new_manifest     the manifest of a new store, or of its next snapshot, and its probe
shards           one shard in, one part out
"""
