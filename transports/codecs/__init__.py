"""Wire codecs: how the rows of hidden states are written in a frame, and which of them a hop needs.

`layout` says how many bytes stand where, `rows` writes and reads them in NumPy (the reference),
`choice` picks one for a hop. Nothing is loaded by this file: who only chooses needs no NumPy.
"""
