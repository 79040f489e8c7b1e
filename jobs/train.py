"""Fine-tune one base model: python -m jobs.train RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
