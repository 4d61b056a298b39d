"""The bundled WSGI server (PEP 3333): four protocols, pre-fork, threads, no dependency but Python >= 3.10.

A request's life, one module per stage:

bytes -> `http`, `uwsgi`, `fastcgi` or `scgi` (pure: complete request, error with a status, or "more, please"; the
last three by `variables`) -> `environ` -> the app, which reads `body` and answers through `response` -> bytes.
`connection` is the life of one connection; `worker` one process with its threads and its epoll; `master` keeps the
workers; `server` puts it together from `arguments` and `address`. `bootstrap` starts all of it in a foreign
interpreter. `protocol` tells by the first byte which module it is, and names what is none of them.

Beside the way of a request: `log` and `access` are the two logs, `state` what the workers show of themselves (`status`
prints it), `preload` what an app may not do before a fork, `notify` what systemd is told.

Every import inside is relative: started by `bootstrap`, the package is not called `stack`.
"""
