"""`ae-pipeline sweep`: which size of codec, from trainings with several settings and seeds.

    space.py      what to try: `train.latent_size=8,16,32` into settings, checked before anything is trained
    trial.py      one training, measured on the validation split through a real store
    stopping.py   when a trial cannot win any more
    study.py      what was tried, in Optuna's SQLite database: a sweep that was killed goes on with what is missing
    running.py    the sweep: which trial is next, until none is missing
    results.py    means and intervals over seeds, the Pareto front, its knee, the smallest codec within a tolerance
    report.py     sweep.json, sweep.md, sweep.png
    runs.py       each trial in MLflow, as a child of one run for the sweep
    choice.py     the chosen values into params.yaml

A setting is a dict of parameters by their dotted path in params.yaml; nothing here knows what they mean, except the
rule that stops trials. Settings are compared by their bits and the MSE, or instead of that by the metric that the
tolerance is on (METRICS in evaluation/measures). The test split is not touched: what a sweep chooses has still to be
measured on it.
"""
