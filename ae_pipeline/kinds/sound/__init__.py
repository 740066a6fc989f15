"""What the kind `audio` is made of (kinds/audio.py).

lapped   frames of sound that lap over each other
clips    clips put together from their frames
files    sound files, read piece by piece, and WAV files written
"""
