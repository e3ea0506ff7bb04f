"""One cluster with guesses beside others without, on real stages: what `speculation` compares.

shardd, coordinator, cluster   a cluster whose guesses are an oracle's
common      what all comparisons share
oracle      guesses that are right as often as is asked for
pair        the embedded model and its draft, against mlx-lm's own speculation
lookup      guesses from what a text repeats
"""
