"""Training: samples go in, a codec comes out.

build            samples in, codec folder out
loop             fit(): epochs, validation, early stopping
batches          rows in memory or streamed
averaging        averages of the weights while they are trained
linear_start     where a model with a linear path begins: at the KLT of the train rows
rate             what latents will cost, as a term of the loss
precision        float32 or bfloat16, decided by measurement
to_integers      from a trained float network to one in integers
outlook          what answering the mean, and PCA, reach: said before training
progress         bars in epochs
"""
