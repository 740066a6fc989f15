"""What a codec costs: errors, bytes, speed, drift.

evaluate         a codec measured through a real store; the quality gate
row_errors       decoded rows against originals
metrics          error of each row
mean_answer      the error beside that of answering each value's mean: R2, SNR
baselines        PCA and zstd
pictures         pictures, and the tables behind them
speed            how fast codecs are, side by side
drift/           how different a batch is from the data that the codec was trained on
"""
