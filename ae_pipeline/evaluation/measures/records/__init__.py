"""Metrics of whole records: of kinds that make several rows of a record, such as the frames of a clip.

measure          what measures one record, piece by piece
pictures         PSNR and SSIM of pictures that are tiles
similarity       structural similarity (SSIM) of each place of a picture; that of rows, too
sound            SNR, segmental SNR and log-mel distance of clips
errors           all records of a data set beside what came back of them; a line each, and the means
pictured         some of them for the pictures of a report
sound_pictures   waves and spectra of these (matplotlib; imported where it is used)

To add one: a class as in `measure`, and a line with `of_records` and `of_kind` in METRICS (../metrics.py). Its
kind gives the values of a record with `Kind.restored`.
"""
