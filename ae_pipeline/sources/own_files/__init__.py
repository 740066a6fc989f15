"""A person's own files: for the source `files`, and as the data that a command is given.

listing     which files there are, what their folders say, and what is left out
places/     where files are: on this machine, or at a URL, from which they are fetched
drawing     which records are held out for the test
records     the records of files, block by block: files that are one record each, and tables
arrays      the same of NumPy's files
readers     which of these reads a person's files, and whether they stay as they are meanwhile
columns     which column holds the records, and which others are kept beside them
sink        where records go: both splits, the list of files, the list of what is left out
splits      rows and their columns, written piece by piece and mapped into memory
samples     files as a data set, for `encode` and the like: OwnSamples
grouping    which files make a shard together
opening     the data that a command is given: prepared Parquet, or a person's own files
words       what messages call things there
"""
