"""nginx: ours, started and kept by the supervisor, or somebody else's, for whom we only write the site.

Both have the site from one place, `site.py`, so that what `nginx-conf` prints is what our own nginx runs with.
"""
