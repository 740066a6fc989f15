"""What is new in an inbox, encoded into a store that grows with it.

    run              one round: what is new, into the store that grows with it
    taking, taken    which files are new, which are bad, and what became of all of them
    columns          files fitted to the columns of the store
    batches          the numbers of each snapshot of a growing store
    files/           the files of an inbox: listed, left alone, remembered, quarantined
    images/          images and IDX files to samples
    labels/          images and labels in IDX files that belong together

`run.encode_inbox` does one round.
"""
