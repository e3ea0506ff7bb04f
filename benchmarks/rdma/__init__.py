"""What the way through the rdma process costs: over the ring back end, on loopback."""
