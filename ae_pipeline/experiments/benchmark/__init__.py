"""The benchmark: our codecs beside what else one would use, in one table. How each is run: docs/choosing.md.

Measure:
    points           one line of the table, with the metrics of decoded rows
    ours             presets trained, through real stores
    pca              PCA at many sizes and quantisers, through the same stores
    image_codecs     JPEG, WebP, AVIF and JPEG XL, file by file and in mosaics, or on whole pictures
    whole_pictures   the pictures that rows are tiles of, for image codecs
    image_formats    their settings
    vector_codes     of vectors: product quantisation (PQ, OPQ), numbers of 8 and 4 bits
    lossless         zstd, xz, brotli, and Parquet of the raw rows

Judge:
    curves           what a family of points takes at a given quality, and the average saving between two
    verdict          numbers into words: what to use here

Tell:
    run              all of it; reports/bench.json
    report           reports/bench.md and reports/bench.png

Door: `run.run_benchmark`.
"""
