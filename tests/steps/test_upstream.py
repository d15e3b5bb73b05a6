"""The order of the steps outside Dagster is the graph's own."""

from definitions import defs
from tidemill.steps.upstream import TRAINING_SET


def test_every_step_comes_after_what_its_asset_depends_on_and_nothing_is_left_out() -> None:
    graph = defs.resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    done: set[str] = set()
    for name in TRAINING_SET:
        assert parents[name] <= done, name
        done.add(name)
    needed, below = {"features/training_set"}, {"features/training_set"}
    while below:
        below = set().union(*(parents[name] for name in below)) - needed
        needed |= below
    assert needed <= done
