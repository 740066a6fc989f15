"""What is measured between originals and what came back of them.

metrics       the one table of all metrics: names, units, which is better, reports that have them
row_errors    those that every row has, block by block
records/      those of whole records, where a record has several rows
"""
