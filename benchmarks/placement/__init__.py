"""Whether a plan keeps what it promises: on clusters whose nodes are paced, each by its own times.

nodes          the times, as the paced processes are told them
shardd, stage  the daemon's own processes, paced
run            what is planned and measured, and the limits
"""
