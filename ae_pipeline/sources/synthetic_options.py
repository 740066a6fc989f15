"""Options of the source `synthetic`."""

from typing import Annotated

from pydantic import Field

from ae_pipeline.params.base import Count, Section, Seed


class Options(Section):
    """How many pictures, of which size."""

    train_rows: Count = 2000
    test_rows: Count = 500
    height: Annotated[int, Field(ge=4)] = 12
    width: Annotated[int, Field(ge=4)] = 12
    seed: Seed = 0
