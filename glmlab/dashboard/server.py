"""optuna-dashboard on the studies of one storage, for this machine alone."""

from __future__ import annotations

import errno
import math
import re
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Self
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import OptunaError
from optuna_dashboard import wsgi
from sqlalchemy.exc import SQLAlchemyError

from glmlab.dashboard.dressing import Dressed, artifact_folder, dress, stage_of
from glmlab.errors import InputError
from glmlab.storage import StudyStore, connect, study_names
from glmlab.storage_url import from_anywhere, must_exist, shown
from glmlab.ticker import Worker

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
_NEXT = 20  # ports to try after the default one
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DETAIL = re.compile(r"/api/studies/(\d+)/?")
_AGAIN_S = 20.0  # at the earliest, a study that is looked at is dressed anew
_SHARE = 20  # and no more than a twentieth of the time goes into that

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class Dashboard:
    """optuna-dashboard on a storage, with glmlab's note, charts and recipe in each of its studies.

    Parameters
    ----------
    storage : str
        Optuna storage URL, or ``journal://FILE``; must exist.
    port : int, optional
        Of 127.0.0.1; 0 takes any. By default 8080, or the next that is free.

    Attributes
    ----------
    studies : dict
        Name -> what was written into it, or why nothing was.
    moved : bool
        Whether the default port was taken.

    Raises
    ------
    InputError
        If there is no such storage, it is in memory, or the port cannot be had.
    """

    def __init__(self, storage: str, port: int | None = None) -> None:
        must_exist(storage)
        self.storage = storage
        self.artifacts = artifact_folder(storage)
        names = study_names(storage)
        self._server = _bind(port)
        self._worker: Worker | None = None
        self.port = int(self._server.server_port)
        self.moved = port is None and self.port != DEFAULT_PORT
        try:
            self.studies = {name: dress_by_name(name, storage) for name in names}
            self.artifacts.mkdir(parents=True, exist_ok=True)
            app = wsgi(connect(storage), artifact_store=FileSystemArtifactStore(self.artifacts))
        except BaseException:
            self._server.server_close()
            raise
        self._server.set_app(only_from_here(Redressed(app, storage, self.studies)))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def to_json(self) -> dict[str, Any]:
        """Where it is and what it shows."""
        return {
            "url": self.url,
            "host": HOST,
            "port": self.port,
            "storage": shown(self.storage),
            "studies": list(self.studies),
            "artifacts": str(self.artifacts),
            "jupyterlab_storage": for_jupyterlab(self.storage),
        }

    def serve(self) -> None:
        """Answer until Ctrl-C, which is the way to end it."""
        try:
            self._server.serve_forever()
        except KeyboardInterrupt:
            return

    def start(self) -> None:
        """Answer in the background until :meth:`close`."""
        if self._worker is None:
            self._worker = Worker("dashboard")
            self._worker.submit(self._server.serve_forever, 0.1)

    def close(self) -> None:
        """Give the port back; a second time it does nothing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._server.shutdown()
            worker.close()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(storage: str, port: int | None = None) -> Dashboard:
    """A dashboard that answers in the background until it is closed; see :class:`Dashboard`."""
    board = Dashboard(storage, port)
    board.start()
    return board


def for_jupyterlab(storage: str) -> str | None:
    """What the Optuna panel of JupyterLab wants as storage URL; ``None`` where that holds a password."""
    whole = from_anywhere(storage)
    return whole if shown(whole) == whole else None


def dress_by_name(name: str, storage: str) -> Dressed | str:
    """Dress a study; where that cannot be, why: the dashboard shows it all the same."""
    try:
        store = StudyStore.open(name, storage)
        return "it holds nothing of glmlab yet" if store is None else dress(store)
    except InputError as error:
        return str(error)
    except (OptunaError, SQLAlchemyError, OSError) as error:
        return (
            f"study {name!r}: cannot be written ({next(iter(str(error).splitlines()), type(error).__name__)})"
        )


class Redressed:
    """An app whose studies are dressed again when somebody looks at one that has come further.

    Parameters
    ----------
    app : callable
        optuna-dashboard.
    storage : str
        Where the studies are.
    studies : dict
        Name -> what was written into it before; kept up to date.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        app: App,
        storage: str,
        studies: dict[str, Dressed | str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._storage, self._studies, self._clock = app, storage, studies, clock
        self._names: dict[int, str] = {}
        self._next: dict[str, float] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        found = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        if found and environ.get("REQUEST_METHOD") == "GET":
            self._look(int(found[1]))
        return self._app(environ, start_response)

    def _look(self, identity: int) -> None:
        name = self._name(identity)
        if name is None or self._clock() < self._next.get(name, 0.0):
            return
        self._next[name] = math.inf  # for those who ask meanwhile
        began = self._clock()
        try:
            if not self._is_current(name):
                self._studies[name] = dress_by_name(name, self._storage)
        finally:
            self._next[name] = self._clock() + max(_AGAIN_S, _SHARE * (self._clock() - began))

    def _is_current(self, name: str) -> bool:
        before = self._studies.get(name)
        try:
            store = StudyStore.open(name, self._storage)
        except InputError:
            return True  # gone, or not glmlab's: the dashboard itself has the words for it
        return store is None or (isinstance(before, Dressed) and before.stage == stage_of(store))

    def _name(self, identity: int) -> str | None:
        if identity not in self._names:
            known = connect(self._storage).get_all_studies()
            self._names = {study._study_id: study.study_name for study in known}
        return self._names.get(identity)


def only_from_here(app: App) -> App:
    """An app that answers pages of this machine only.

    The dashboard has no login and can delete studies. Being bound to 127.0.0.1 keeps other machines out,
    but a page of any site could still ask for a name that it makes resolve to 127.0.0.1.
    """

    def guarded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if not _is_here(f"//{environ.get('HTTP_HOST', '')}") or (origin and not _is_here(origin)):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"glmlab dashboard answers to localhost and 127.0.0.1 only.\n"]
        return app(environ, start_response)

    return guarded


def _is_here(url: str) -> bool:
    """Whether a URL is one of this machine; what is no URL is not."""
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a page that still loads does not hold Ctrl-C back

    def server_bind(self) -> None:
        # As WSGIServer does it, but without asking a name server who 127.0.0.1 is.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal shows where the dashboard is, not who asked for what."""


def _bind(port: int | None) -> _Server:
    """A server on a port that is free."""
    if port is not None and not 0 <= port <= 65535:
        raise InputError(f"port = {port}: expected 1 to 65535, or 0 for any that is free")
    wanted = [port] if port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + _NEXT), 0]
    for number in wanted:
        try:
            return make_server(HOST, number, _unready, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
                raise InputError(
                    f"port = {number}: {why}; name another, or leave it out for one that is free"
                ) from None
    raise InputError("port: none is free on this machine")


def _unready(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [])
    return [b""]
