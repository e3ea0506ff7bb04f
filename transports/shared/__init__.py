"""A link between a stage and the rdma process of its node: shared memory, and doorbells.

    stage, listens                                    rdma process, connects
    SharedPort     ◄─ hello (Hello) ───────────────── connect
    (a receiver)    ─ welcome, and three descriptors ► StageEnd
    SharedSender    ═ lane "down": memory, doorbell ══►
                   ◄═ lane "up":   memory, doorbell ══

One region of memory holds both lanes (layout.py). A lane has one writer and one reader and a socket
pair of its own: one byte on it for each piece of a message that can be read, no more and no fewer.
So a socket is readable as long as there is something to take, system calls order what both sides
see of the memory on every processor, and its end says at once that the other process is gone.

The stage makes the region and keeps it from being cut (where the system can: F_SEAL_SHRINK), so
that nothing the other process does to it can end the stage. What stands in the region is checked
before it is used; what makes no sense there ends the connection, as `damaged`.
"""
