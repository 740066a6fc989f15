"""Columns of a table as rows of numbers, and these columns again: for the kind `table` as whole numbers of any type.

fields      what a row of numbers has, for the codec
rows        rows of a table as such rows, and back
state       what is kept of a column: a vocabulary, a grid, one value, or that it stays as it is
whole       values of an Arrow column as whole numbers, and back
fit         which state suits the values of a column
scaled/     columns of numbers on a common scale, for the kind `vector`
exceptions  values that no field holds, as JSON beside the row
"""
