"""`make bench`: this stack beside what people would use instead, in one run on one machine; see docs/performance.md."""
