"""A store kept trustworthy.

verify         is a store whole?
deep           does it hold the data it was made from?
findings       what verify and repair found and did
part_checks    one part, every byte and row
repeated_ids   ids that several rows have
repair         a damaged store, given its bytes back
part_repairs   damaged parts, moved in when they are the same
make_again     parts made again from their data
lost_manifest  what a lost manifest may have been, and the proof
snapshots      which snapshots there are, what each added, whether they are whole
vacuum         what no kept snapshot needs
"""
