"""Runs that take hours: fuzzing, kills and long hauls; `make fuzz` and `make soak`.

Each is a script with a count or a time, and `make test` runs it with a small one
(tests/test_soak.py).  docs/reliability.md holds what they found.
"""
