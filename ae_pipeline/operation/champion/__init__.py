"""Which version of the model production uses.

history          who was champion when, by whom and why: pure data
registered_model the alias and the history in MLflow, settled
moves            promote, roll back, compare
lost             whether there was a champion where there is none
comparison       whether a challenger should be champion: science without MLflow
"""
