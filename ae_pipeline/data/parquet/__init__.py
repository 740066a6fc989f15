"""Parquet, beyond what pyarrow does.

limits           what a file may ask for before it is read
thrift           the few words of Thrift that page headers are written in
reader           other people's files, opened so that no value changes
columns          columns by their place in the file, never by a dotted path
writer           row groups of one size, whole files; tables cut anew
"""
