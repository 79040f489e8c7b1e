"""Looking at rows: some of them, their numbers, a page of both. For people; no stage needs it."""
