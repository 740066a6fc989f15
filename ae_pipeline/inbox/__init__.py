"""What is new in an inbox, encoded into a store that grows with it.

    run              what is new in an inbox, into the store that grows with it
    taking, taken    which files are new, which are bad, and what became of all of them
    faults           whose fault an error is: the file's, its storage's, or the run's
    files, names     an inbox's files: listing, copies, when they may be taken, which are left alone
    quarantine       bad files with their reasons, and back when they change
    ledger           what is remembered between two runs
    columns          files fitted to the columns of the store
    read_again       columns that could not be read again
    pairing          images and labels in IDX files that belong together
    late_labels      labels that came after their images
    converting       IDX files and images to samples
    images           one image to pixels
    image_headers    what an image file says of its own values
    batches          the numbers of each snapshot of a growing store

`run.encode_inbox` does one round.
"""
