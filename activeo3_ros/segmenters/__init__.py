"""Instance masks from boxes or clicks.

Here: implementations of `core.interfaces.Segmenter`. Not here: encodings of masks (`codecs.rle`).
"""
