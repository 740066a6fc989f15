"""Columns of numbers of a table, each on a scale of its own: what the kind `vector` makes rows of (kinds/vector.py).

scaling     a column's range, and its values on the common scale and back
columns     columns of a table as rows, and rows as these columns again
"""
