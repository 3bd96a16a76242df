"""The bar says how right the mean user is, as the report has it."""

import pytest

import flsim
from flsim.loop.bar import DisplayBar, bar_of, said_of
from flsim.metrics.rows import Row, evaluation, latest
from flsim.metrics.users import per_user
from tests.tiny import TOKEN_RUN, TinyRun

TINY = TOKEN_RUN


def test_by_hand() -> None:
    rows = [
        Row(1, "device-000", "a", "test", "global", "accuracy", 2.0, 2.0),
        Row(1, "device-000", "b", "test", "global", "accuracy", 1.0, 2.0),
        Row(1, "device-001", "a", "test", "global", "accuracy", 1.0, 4.0),
        Row(1, "device-001", "a", "test", "frozen", "accuracy", 4.0, 4.0),
        Row(1, "device-000", "all", "train", "own", "cloud_requests", 1.0, 4.0),
        Row(1, "device-000", "a", "train", "own", "cloud_requests", 9.0, 9.0),
    ]
    assert said_of(rows) == {"accuracy": "50.0 %", "usage": "25.0 %"}  # 3 of 4 and 1 of 4; 1 of 4, all tasks together
    weighed = Row(1, "device-000", "all", "train", "own", "weighed_requests", 0.5, 4.0)
    assert said_of([*rows, weighed])["usage"] == "12.5 %"
    assert said_of([]) == {}


def test_the_last_round_says_what_the_rows_say(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str], no_report: None, one_thread: None
) -> None:
    run = flsim.run(tiny_run("told", "client.path=clients.da_grpo:DaGrpo"))
    shown = capsys.readouterr().err.split("\r")[-1]
    accuracy = per_user(latest(evaluation(run.rows, model="global", name="accuracy"))).mean()
    assert "2/2" in shown
    assert f"accuracy={100 * accuracy:.1f} %" in shown
    assert "usage=" in shown


def test_a_display_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for IPython, which need not be there: one display, all others update it."""
    import sys
    from types import ModuleType, SimpleNamespace

    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> object:
        assert not shown
        shown.append(data)
        return handle

    python, inner = ModuleType("IPython"), ModuleType("IPython.display")
    python.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    inner.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with bar_of(3, desc="<mine>", unit="round", shown=True) as bar:
        assert isinstance(bar, DisplayBar)
        bar.set_postfix({"accuracy": "50.0 %"}, refresh=False)
        bar.update(3)
    assert len(shown) > 1
    assert "3/3" in shown[-1]["text/plain"]
    assert "accuracy=50.0 %" in shown[-1]["text/html"]
    assert "&lt;mine&gt;" in shown[-1]["text/html"]
    assert 'value="3" max="3"' in shown[-1]["text/html"]
