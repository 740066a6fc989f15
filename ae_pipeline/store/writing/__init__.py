"""A store is written: parts, codec, manifest, commit.

encoding         a new store
appending        a store that grows: one append, one snapshot
commit           the steps of both, in a folder and at a URL: codec, parts, manifest
checks           what a data set must be to go into a store
plan             what an append has to do
new_manifest     the manifest of a new store, or of its next snapshot
shards           one shard in, one part out
probe            does this machine decode as the writer's did?
"""
