"""The names that `import flsim` offers are loaded when they are first used, with nothing else changed."""

import gc

import pytest

import flsim


@pytest.mark.parametrize("collects", [True, False])
def test_loading_a_name_leaves_the_collector_of_garbage_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        assert flsim.__getattr__("load_config") is flsim.load_config
        assert gc.isenabled() == collects
        with pytest.raises(AttributeError, match="has no 'runs'; it offers: Comparison, Config"):
            flsim.__getattr__("runs")
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_every_public_name_is_there() -> None:
    assert all(getattr(flsim, name).__module__.startswith("flsim.") for name in flsim.__all__)
