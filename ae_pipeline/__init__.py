"""Batch compression with autoencoders: train a codec, encode to a latent store, decode any row back."""

__version__ = "0.1.0"
