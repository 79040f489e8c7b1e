"""Rows to token shards: python -m jobs.prepare RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
