"""Where a person's files are: on this machine, or at a URL.

states        what files on this machine are by names, sizes and times, so that DVC sees a change
remote        what files there are at a URL, and how they are fetched
side_by_side  several files fetched at a time
at_hand       files of both places as paths: those of a URL are listed and fetched into a folder here
elsewhere     the same on other machines, for one shard at a time
"""
