"""Vectors that are columns of numbers of a table, each with a scaling of its own (the kind `vector`, kinds/vector.py).

scaling     a column's range, and its values on the common scale and back
columns     columns of a table as rows, and rows as these columns again
"""
