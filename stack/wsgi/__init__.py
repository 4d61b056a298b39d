"""The bundled WSGI server (PEP 3333): HTTP/1.1 and uwsgi, pre-fork, threads, no dependency but Python >= 3.10.

A request's life, one module per stage:

bytes -> `http` or `uwsgi` (pure: complete request, error with a status, or "more, please") -> `environ` -> the app,
which reads `body` and answers through `response` -> bytes. `connection` is the life of one connection; `worker` one
process with its threads and its epoll; `master` keeps the workers; `server` puts it together from `arguments` and
`address`. `bootstrap` starts all of it in a foreign interpreter. A further protocol is one more module beside `http`
and `uwsgi`, and one line in `protocol`.

Every import inside is relative: started by `bootstrap`, the package is not called `stack`.
"""
