"""What the benchmark measures: one file per family of alternatives.

points           one measured setting: bits, errors, times
ours             our codecs, one for each preset
pca              PCA at many sizes
image_codecs     JPEG, WebP, AVIF, JPEG XL: file by file and in mosaics
image_formats    how Pillow writes each of them
lossless         zstd, xz, brotli, Parquet of the raw rows
"""
