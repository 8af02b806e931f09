"""Fixtures of the unit tests. What widgets need is imported where a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from glmlab.session import Session
from tests.studies import TWO_PLANS, spec, split_helps
from tests.watched import Gate, threads, until

# How long one example took says how busy the machine was, and nothing of what is tested.
settings.register_profile("glmlab", deadline=None)
settings.load_profile("glmlab")

if TYPE_CHECKING:
    from glmlab.widgets.board import Board
    from glmlab.widgets.play import Play
    from glmlab.widgets.sweep import Sweep
    from tests.boards import Many


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"journal://{tmp_path}/studies.log"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Through which each measurement has to go; open once the test is over."""
    made = Gate(split_helps)
    yield made
    made.open(10_000)


@pytest.fixture
def boards() -> Iterator[Callable[[Board], None]]:
    """Takes boards that are to be closed when the test is over."""
    made: list[Board] = []
    yield made.append
    for board in made:
        board.close()
    until(lambda: not threads("glmlab-ticker"))


@pytest.fixture
def make_board(url: str, boards: Callable[[Board], None]) -> Iterator[Callable[..., tuple[Session, Board]]]:
    """Makes a session and a board that shows it."""
    from glmlab.widgets.board import Board

    sessions = []

    def make(start: Any, space: Any = TWO_PLANS, **changes: Any) -> tuple[Session, Board]:
        session = Session(spec(space, **changes), url, start=start)
        sessions.append(session)
        board = Board(session, live=False)
        boards(board)
        return session, board

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def many(boards: Callable[[Board], None]) -> tuple[Many, Board]:
    """A board of a session of any number of trials, painted by the test alone."""
    from glmlab.widgets.board import Board
    from tests.boards import Many

    session: Any = Many()
    board = Board(live=False)
    boards(board)
    # Its own thread would paint too: here it is the test that counts.
    board.painter.close()
    board.session = session
    return session, board


@pytest.fixture
def make_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Play]]:
    """Makes a Play, with engines that are doubles where a test names them."""
    from glmlab.widgets.play import Play
    from tests.plays import RECIPE

    monkeypatch.setenv("GLMLAB_LOGS", str(tmp_path))
    made: list[Play] = []

    def make(starts: Any = None, recipe: Any = RECIPE, **kwargs: Any) -> Play:
        extra = {} if starts is None else {"start": starts}
        made.append(Play(recipe, **extra, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def play(make_play: Callable[..., Play]) -> Play:
    """One whose engine serves."""
    from tests.plays import Starts, start

    made = make_play(Starts())
    start(made)
    return made


@pytest.fixture
def make_sweep(url: str) -> Iterator[Callable[..., Sweep]]:
    """Makes a Sweep, which is closed with its session when the test is over."""
    from glmlab.widgets.sweep import Sweep

    made: list[Sweep] = []

    def make(recipe: Any = "tiny-glm4-moe", *, storage: str = url, **more: Any) -> Sweep:
        sweep = Sweep(recipe, storage=storage, live=False, **more)
        made.append(sweep)
        return sweep

    yield make
    for sweep in made:
        if sweep.session is not None:
            sweep.session.close()
        sweep.close()
