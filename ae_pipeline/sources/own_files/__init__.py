"""A person's own files, for the source `files`.

listing     which files there are, what their folders say, and what is left out
states      what files are by names, sizes and times, so that DVC sees a change
drawing     which records are held out for the test
records     the records of files, block by block: files that are one record each, and tables
arrays      the same of NumPy's files
readers     which of these reads a person's files, and whether they stay as they are meanwhile
columns     which column holds the records, and which others are kept beside them
sink        where records go: both splits, the list of files, the list of what is left out
splits      rows and their columns, written piece by piece and mapped into memory
"""
