"""A made-up marketplace: invented raw files in the exact formats of the six real sources. Nothing in it is real."""
