"""How many inputs Hypothesis makes up for a test: the same ones in every run, however long they take."""

from hypothesis import HealthCheck, settings


def examples(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
