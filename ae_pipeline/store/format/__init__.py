"""The format (docs/store-format.md): one writer, one reader.

manifest         _manifest.json
entries          what it says of the whole store
manifest_text    its text, with very many parts
segment_file     a file that lists parts, where a manifest lists such files
segments         the parts of those, read where they are asked for
layouts          the forms of the latent column
entropy_coding   latents of a row group in fewer bits
part_writer      the format's one writer
part_file        a part as a Parquet file, checked as it is read
verified_file    digests of the pieces of a part or segment, checked as they are read
"""
