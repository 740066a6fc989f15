"""What an operator asks in the morning, on one page: `ae-pipeline status`.

page       all of it, and what needs attention
models     champion, challenger, drift: MLflow
runs       last runs, slots, workers: Prefect, by flows/overview.py
files      inbox, quarantine, growing stores
machine    who is at work in the folder, disks
text       the page for a terminal
"""
