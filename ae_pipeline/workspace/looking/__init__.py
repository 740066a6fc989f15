"""Looks at a person's data without training on them: `ae-pipeline inspect`, and what `init` chooses.

found      what files are at a path
fetching   which files at a URL are fetched for a look
guess      which kind reads them
sampling   which records are looked at, where there are many
tally      what these records are: shapes, ranges, missing and repeated ones, and what would be refused
choice     the settings that suit: preset, gate
outlook    how long training takes here, and how large the codec will be
klt        what PCA makes of the rows: what to expect is guessed from it
worth      whether an autoencoder pays, beside PCA, zstd and image codecs
look       all of it for one path: Looked
tables     what can be said of tables and texts, which are not supported yet
report     Looked in words; plain.py for programs
"""
