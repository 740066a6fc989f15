"""What is new in an inbox, encoded into a store that grows with it.

run              one round: what is new, into the store that grows with it
taking           which files are new, and which are bad
batches          what became of all of them, and the numbers of each snapshot of a growing store
columns          files fitted to the columns of the store
idx              IDX files: images and labels that belong together, and their rows
images           images to rows as the codec has them (opening them: kinds/image_files.py)
files/           the files of an inbox: listed, left alone, remembered, quarantined
"""
