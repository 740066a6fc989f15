"""The benchmark: our codecs beside what else one would use, in one table. How each is run: docs/choosing.md.

measure/    what each takes, and what comes back
curves      what a family of them takes at a given quality, and the average saving between two
verdict     numbers into words: what to use here
run         all of it; reports/bench.json
report      reports/bench.md and reports/bench.png

Door: `run.run_benchmark`.
"""
