"""What surrounds a run on many machines: nodes checked, a Ray made ready, notices heard, jobs sent.

Nothing here knows of models or data; stages do not import it.
"""
