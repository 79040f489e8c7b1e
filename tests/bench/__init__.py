"""Measurements of the claims that issues name. No part of `make test`: `python -m tests.bench [NAME …]`."""
