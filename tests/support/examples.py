"""How many inputs Hypothesis makes up for a test: the same ones in every run, however long they take.

`AE_TEST_EXAMPLES=10 make test` has ten times as many.
"""

import os

from hypothesis import HealthCheck, settings


def examples(count):
    return settings(
        max_examples=count * int(os.environ.get("AE_TEST_EXAMPLES", "1")),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
