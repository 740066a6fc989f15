"""Every way in: the command `ae-pipeline`, a file per group of commands, and what they print.

main             the command itself; check, stage, publish, summary, and the servers
init             init
codecs           encode, evaluate, info
decode           decode
store            verify, repair, append, compact, vacuum
champion         compare, promote, rollback, history
experiments      sweep, bench, preset
options          options that several commands have, and how results and progress are shown
store_text       what verify, repair, compact and vacuum print
summary          what `make run` prints at its end
preflight        what `check` finds before anything runs
address_space    whether `ulimit -v` leaves enough for PyTorch
stages/          the commands of dvc.yaml
"""
