"""The cluster that the seed of this project measured, as a paced replica: real daemons, sockets,
caches and tokens, while every pass and every hop is drawn out to the seed's times.

pace         the times, and their arithmetic
oracle       guesses that are right as often as is asked for
relay        the links
shardd, stage, coordinator, draft   the daemon's own processes, paced
rehearsal    the same without processes, under a fake clock
cluster      all of it, started and ended
"""
