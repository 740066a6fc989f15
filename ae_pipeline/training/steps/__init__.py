"""A training's steps, and what is done before the first one.

trainer          what is trained, and a step: loss, gradient, optimizer, learning rate
course           where a training stands: the order of rows, weights, optimizer, draws
averaging        averages of the weights while they are trained
linear_start     where a model with a linear path begins: at the KLT of the train rows
precision        float32 or bfloat16, decided by measurement
"""
