"""Files that are no Parquet, to samples.

converting       IDX files and images to samples
reading          one image to pixels
headers          what an image file says of its own values
"""
