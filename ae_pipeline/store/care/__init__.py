"""A store kept trustworthy.

verify           is a store whole?
part_checks      one part, every byte and row
snapshot_checks  the manifests
repeated_ids     ids that several rows have
repair           a damaged store, given its bytes back
part_repairs     damaged parts, moved in when they are the same
make_again       parts made again from their data, and compared
lost_manifest    a lost manifest, proven from the parts
snapshots        which snapshots there are, and what each added
vacuum           what no kept snapshot needs
"""
