"""What a codec costs: errors, bytes, speed, drift.

measures/        the table of metrics, of rows and of whole records; to add one, add a line there
evaluate         a codec on held-out rows, beside PCA and zstd
gate             what it must reach
through_store    rows into a real store and back, and what that takes
compare          every metric of decoded rows, row by row and of all together
mean_answer      the error beside that of answering each value's mean: R2, SNR
neighbours       what a search in decoded vectors finds of what one in the originals finds
baselines        PCA and zstd
pictures         pictures, and the tables behind them
speed            how fast codecs are, side by side
drift/           how different a batch is from the data that the codec was trained on
"""
