"""nginx and an app server as one would configure them by hand, and the table that compares."""
