"""Where a store's files are, read and written.

place            which kind of place a path or URL is: decided there, once
folder           a local folder, and what folders and URLs have in common
url              S3: conditional puts
work_folder      where unfinished parts of a store in a folder are kept
"""
