"""Makes a trained float network one in integers.

tuning           what is left of the training, once everything is rounded
to_integers      the network meanwhile
"""
