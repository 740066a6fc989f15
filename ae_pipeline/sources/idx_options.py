"""Options of the source `idx`."""

from ae_pipeline.params.base import Section


class Options(Section):
    """The folder with the files."""

    folder: str = "data/idx"
    """Folder with train-images*, t10k-images* (or test-images*) and optional labels, gzipped or not."""
