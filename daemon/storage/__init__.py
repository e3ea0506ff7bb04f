"""Saved KV: the caches of a sequence's first tokens as files, so that they outlive every process.

    form.py       what the arrays of a layer's cache look like
    manifest.py   what a file says of itself, written and read
    content.py    a file's bytes: written in slices, read and checked in slices
    folder.py     the files of one node, and how much they may take
    errors.py     why a file is not used, or cannot be written

No MLX, no sockets: bytes in, bytes out. All work is done in steps of at most SLICE bytes, which a
caller takes one at a time, so that nothing else waits for a disk. Nothing that stands in a file is
believed before it has been compared with what the reader expects, and no memory is taken for it.
"""
