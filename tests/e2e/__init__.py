"""The real programs: stackctl's command line, nginx, the bundled server; real sockets and signals on loopback."""
