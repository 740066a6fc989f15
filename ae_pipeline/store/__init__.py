"""The latent store. Format: docs/store-format.md; what it promises: docs/reliability.md.

Read:
    storage          where a store's files are: folder or URL
    pieces           digests of the pieces of a part, checked as they are read
    manifest         _manifest.json
    layouts          the forms of the latent column
    entropy_coding   latents of a row group in fewer bits
    part_file        a part as a Parquet file, checked as it is read
    latent_store     an open store, and the format's one reader
    scanning         chosen rows and columns, reading no more than needed
    where            conditions as in SQL
    conditions       what conditions say of rows, and of row groups by their statistics
    decoding         a store, or chosen rows of it, back into samples
    exporting        decoded rows as one file, or as images

Write:
    part_writer      the format's one writer
    shard_jobs       one shard in, one part out
    encoding         a new store: parts, codec, manifest, commit
    probe            does this machine decode as the writer's did?
    appending        a store that grows: one append, one snapshot
    snapshots        which snapshots there are, and what each added
    vacuuming        what no kept snapshot needs

At a URL:
    remote           a store at a URL: parts uploaded, one conditional put
    remote_files     what it asks of the file system behind the URL

Verify:
    verifying        is a store whole?
    part_checks      one part, every byte and row
    snapshot_checks  the manifests
    repeated_ids     ids that several rows have
    verify_report    what people are told of all that

Repair:
    repairing        a damaged store, given its bytes back
    part_repairs     damaged parts, moved in when they are the same
    rebuilding       a lost manifest
    remaking         parts made again from their data, and compared

Doors: `latent_store.LatentStore` for readers; `encoding.encode_samples` and `appending.append_samples` for writers.
"""
