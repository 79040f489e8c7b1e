"""python -m ecellm.cli COMMAND: the same as the console script `ecellm`."""

from ecellm.cli import main

main()
