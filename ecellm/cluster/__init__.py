"""What surrounds a run on many machines: nodes that are checked, a Ray that is ready, notices that are heard, jobs sent.

Nothing here knows of models or data; stages do not import it.
"""
