"""Rows on disk.

samples          SampleSet: rows in Parquet shards, read in blocks
blocks           rows in memory, cut anew
sample_files     which files a data set is, and the keys in its folders' names
table_columns/   columns of a table as rows of numbers
value_range      where values lie, and whether outliers decide the scaling
pixels           shape and dtype of a sample, and its Arrow column; what a source gives: the rows of one split
sample_schema    what Parquet files say about their samples
idx              MNIST's file format
splits           a source split into train, validation and test; first rows of a data set
arrow_types      Arrow types as plain JSON
json_types       values that the JSON files of codecs, stores and reports have in common
parquet/         reading and writing Parquet with limits
"""
