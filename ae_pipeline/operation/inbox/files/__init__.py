"""The files of an inbox.

listing          what is there, copies of it, and when it may be taken
names            which names are left alone, and how they are shown
ledger           what is remembered between two runs
quarantine       bad files with their reasons, and back when they change
faults           whose fault an error is: the file's, its storage's, or the run's
"""
