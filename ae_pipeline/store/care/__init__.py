"""A store kept trustworthy.

verify         is a store whole?
deep           does it hold the data it was made from?
findings       what verify and repair found and did
part_checks    one part or segment, every byte and row
repeated_ids   ids that several rows have
repair         a damaged store, given its bytes back
make_again     parts made again from their data
lost           a lost manifest or segment, made again and proven
snapshots      which snapshots there are, what each added, whether they are whole
vacuum         what no kept snapshot needs
"""
