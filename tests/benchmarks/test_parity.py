"""Counting a test report."""

from benchmarks.parity import count

REPORT = """<testsuites><testsuite>
<testcase name="llama"/><testcase name="phi3"><failure message="x"/></testcase>
<testcase name="qwen3"><skipped message="y"/></testcase>
</testsuite></testsuites>"""


def test_only_what_passed_counts() -> None:
    assert count(REPORT) == (["llama"], ["phi3", "qwen3"])
