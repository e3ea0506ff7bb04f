"""The rdma process: one group of mx.distributed for its whole life, and bytes that pass through it.

    stage ══ lane down ══► Downward ── Sending ─► a neighbour's Inward ══ lane up ══► its stage

A child of shardd that may be killed, crash or hang at any moment. So it knows no frame, holds
nothing that could be lost, and ends at the first thing that goes wrong, with a last line on stderr
that says what (ending.py): a group cannot be mended from inside.

The main thread has the control socket, the watchdog and what shows the stage that this process is
alive. A thread has the connection to the stage; one goes down, one comes up from each neighbour,
one answers and makes probes: these have an MLX stream each.

While a receive is pending MLX spins, on every back end. So no receive is, until the neighbour has
said on a TCP connection beside the group's own that a message comes (line.py); the end of that
connection is also how the end of a neighbour is noticed at once.
"""
