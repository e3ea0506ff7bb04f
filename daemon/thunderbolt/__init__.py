"""RDMA over Thunderbolt: what a machine has, what is wrong with it, and what to do about that.

`look.Looker` runs the system's tools; everything else is plain: outputs in, facts out (`machine`),
facts in, verdicts, cables, JACCL's matrix, fixes and advice out. Nothing here changes anything.
"""
