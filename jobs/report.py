"""Scores to report.html and report.md: python -m jobs.report RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
