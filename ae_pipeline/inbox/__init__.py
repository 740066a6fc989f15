"""What is new in an inbox, encoded into a store that grows with it.

    run              what is new in an inbox, into the store that grows with it
    taking           which files are new, and which are bad
    columns          its files fitted to the columns of the store
    files            an inbox's files: listing, copies, ledger, quarantine
    converting       IDX files and images to samples
    batches          the numbers of each snapshot of a growing store

`run.encode_inbox` does one round.
"""
