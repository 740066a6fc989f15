"""Rows of a store, all or chosen.

scan             chosen rows and columns, reading no more than needed
where            conditions as in SQL
conditions       what conditions say of rows, and of row groups by their statistics
decode           a store, or chosen rows of it, back into samples
export           decoded rows as one file, or as images
own_form         the form that the user's records had, and Parquet in that form
own_files        records as the user's own files: pictures, arrays
own_arrays       arrays as NumPy's files have them, written piece by piece
"""
