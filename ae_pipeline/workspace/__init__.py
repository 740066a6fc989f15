"""What a folder needs to be a workspace of the pipeline, and the making of one: `ae-pipeline init`.

files      which files of the repository they are, and where an installation has them
source     which source it reads, by name or by what lies at a path
make       a new workspace: whole, or not at all
"""
