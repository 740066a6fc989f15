"""Rows of tables that come back within the bound of each column, coded by a model of each given the others.

options    what codec.json says; readable without torch
networks   one small network for each field, in whole numbers
chances    logits as chances of symbols
fields     one field of all rows as symbols, and back
streams    a block of rows as a stream of bytes, and back
saving     the codec's folder
"""
