"""Images and labels in IDX files.

pairing          those that belong together
late_labels      labels that came after their images
"""
