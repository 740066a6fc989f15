"""`python -m ae_pipeline`: the same as the command `ae-pipeline`."""

from ae_pipeline.cli.main import main

main()
