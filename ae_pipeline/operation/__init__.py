"""The work in production: new data, the champion, MLflow, drift, servers.

inbox/           what is new in an inbox, into a store that grows with it
champion/        which version production uses, and who decided so
tracking/        MLflow
status/          `ae-pipeline status`: all of it on one page
monitoring       drift of new batches, as a series in MLflow
alerts           a webhook is told when somebody is needed
serving          `ae-pipeline serve`, `worker` and `recover`: both servers and a worker, started and ended
ownership        one runner at a time in a workspace; a stage ends with the DVC that started it
"""
