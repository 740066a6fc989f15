"""What messages call things where a command is given a person's own files, and not the source `files`."""

from collections.abc import Iterator
from contextlib import contextmanager

from ae_pipeline.errors import PipelineError

_HERE = {
    "set source.files.path to a file": "give a file",
    "name one sort by a glob in source.files.path": "give one sort, by a glob such as 'photos/*.png'",
    ", or name the others by a glob in source.files.path": ", or give the others by a glob such as 'photos/*.png'",
    "name it in source.files.column, or set another source.files.kind": "give files with one that can be",
    "; columns of numbers make a vector together, as a list in source.files.column (--column for each)": "",
    ", or set source.files.kind: image for pictures": "",
    ", or set source.files.kind: vector for rows of numbers": "",
    ", or set source.files.label to null": "",
    "; read them with source.name: idx": "; put them into the inbox, or convert them",
}


@contextmanager
def in_words_of_commands() -> Iterator[None]:
    """Errors that name settings of the source `files` name what a command is given instead."""
    try:
        yield
    except PipelineError as error:
        raise error.renamed(_HERE) from None
