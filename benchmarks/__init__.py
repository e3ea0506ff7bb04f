"""The comparisons behind every number in docs/benchmarks.md; `python -m benchmarks list` names
them.
"""
