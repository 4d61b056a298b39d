"""Runs what a plan says: starts, watches, switches and stops processes, and answers on a control socket.

It is handed plans as data and imports nothing of configuration, rendering or the command line, so it stays small and
goes on when the package beneath it is upgraded.
"""
