"""What is new in an inbox, encoded into a store that grows with it.

    run              one round: what is new, into the store that grows with it
    taking           which files are new, and which are bad
    outcome          what became of all of them
    columns          files fitted to the columns of the store
    pairing          images and labels in IDX files that belong together
    batches          the numbers of each snapshot of a growing store
    files/           the files of an inbox: listed, left alone, remembered, quarantined
    images/          images and IDX files to samples

`run.encode_inbox` does one round.
"""
