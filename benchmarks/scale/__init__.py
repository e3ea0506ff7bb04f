"""How long the coordinator's decisions take in a large cluster: simulated, no sockets, no model.

crowd     many sequences on a pipeline of virtual stages, under a virtual clock
members   the nodes of such a cluster, as the cluster machine knows them
run       what is measured, and the limits
"""
