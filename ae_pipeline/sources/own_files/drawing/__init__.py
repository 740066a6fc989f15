"""Which records are held out for the test.

records.py   each by itself
groups.py    those of one group together
"""
