"""Training: samples go in, a codec comes out.

build            samples in, codec folder out
loop             fit(): epochs, validation, early stopping
batches          what rows can do, and rows in memory
streaming        rows read in each epoch, through a shuffle buffer, and which of the two it is
steps/           what is trained, and how a step changes it
rate             what latents will cost, as a term of the loss
integers/        from a trained float network to one in integers
ranks            several processes that train together, and what they tell each other
launching        starts them on this machine
checkpoints      a training in a file, so that one that was killed goes on
context/         codecs that promise a bound for every value
outlook          what answering the mean, and PCA, reach: said before training
progress         bars in epochs
"""
