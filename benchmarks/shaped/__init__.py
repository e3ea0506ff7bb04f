"""Two stages with a cable of a given speed between them: network namespaces, and a token bucket
filter at each end.

cable       the namespaces, and what the filters let through
shardd, coordinator   the daemon's own processes, each in its namespace; frames' traces are kept
prefill     one long prompt over that cable, and the link's share of it
"""
