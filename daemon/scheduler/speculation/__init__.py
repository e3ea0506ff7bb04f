"""Guessing ahead (DESIGN.md §7): tokens are assumed, sent to be verified, and taken back when the
pipeline says otherwise. A refuted guess is a new attempt; nothing else is undone.

guesses     what is assumed to follow a sequence's tokens
guesser     where guesses come from that are there at once
lookup      guesses from the sequence's own n-grams
acceptance  how often guesses were right
trial       whether the draft model is worth what it takes
tempo       how many guesses to send, and when
draft       the draft model, as far as it concerns the scheduler
speculator  all of it together: what goes with the next frame
"""
