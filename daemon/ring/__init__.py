"""A process's two ends of the ring, which frames go round: in from the process before it, on to the
one after it, by one of two paths.

    ring        both ends
    incoming    the receiving one: it listens on both paths all the time
    junction    in which order they are read, when the sender goes over from one to the other
    outgoing    the sending one: by the path in force, back to ZeroMQ the moment that RDMA ends
    networks    where plain ZeroMQ may be used
"""

from daemon.ring.networks import Network, kv_address, plain_allowed
from daemon.ring.ring import MAX_CHUNK_TOKENS, WIDEST_ELEMENT, Lost, Ring

__all__ = [
    "MAX_CHUNK_TOKENS",
    "WIDEST_ELEMENT",
    "Lost",
    "Network",
    "Ring",
    "kv_address",
    "plain_allowed",
]
