"""Where a store's files are.

folder           a local folder, and what folders and URLs have in common
url              what a store asks of the file system behind a URL
work_folder      where unfinished parts are kept
"""
