"""Live: who looks is known without asking every hook point, and is the same as asking every hook point."""

import copy
import pickle

import pytest
import torch
from torch import nn

from transformer_lens.hooks import HookedRootModule, HookPoint, is_live
from transformer_lens.hooks.live import Live


def doubled(x, hook):
    return x * 2


class Chain(HookedRootModule):
    def __init__(self, length=3):
        super().__init__()
        self.points = nn.ModuleList(HookPoint() for _ in range(length))
        self.setup()

    def forward(self, x):
        for point in self.points:
            x = point(x)
        return x


def live_names(model):
    """The live points as the model knows them, which must be those that are found by asking each."""
    heard = {point.name for point in model._live}
    assert heard == {name for name, point in model.hook_dict.items() if is_live(point)}
    return sorted(heard)


def test_hooks_of_every_kind_are_heard_of():
    model = Chain(5)
    assert live_names(model) == []
    model.points[0].add_hook(doubled)
    model.points[1].add_perma_hook(doubled)
    model.points[2].add_hook(doubled, dir="bwd")
    handle = model.points[3].register_forward_hook(lambda module, args, output: output)
    before = model.points[4].register_forward_pre_hook(lambda module, args: None)
    assert live_names(model) == [f"points.{n}" for n in range(5)]
    handle.remove()
    before.remove()
    assert live_names(model) == ["points.0", "points.1", "points.2"]
    model.reset_hooks()
    assert live_names(model) == ["points.1"]
    model.points[1].fwd_hooks[0].hook.remove()
    assert live_names(model) == []


def test_lists_of_hooks_that_a_client_takes_away_and_puts_back():
    model = Chain()
    model.points[0].add_hook(doubled)
    kept, model.points[0].fwd_hooks = model.points[0].fwd_hooks, []
    assert live_names(model) == []
    model.points[0].fwd_hooks = kept
    assert live_names(model) == ["points.0"]


def run_into_an_error(model):
    with model.hooks([("points.1", doubled)], [("points.2", doubled)]):
        raise ValueError("in the middle")


def test_contexts_nest_and_end_by_exceptions():
    model = Chain()
    with model.hooks([("points.0", doubled)]):
        with model.hooks([("points.1", doubled)], [("points.2", doubled)]):
            assert live_names(model) == ["points.0", "points.1", "points.2"]
        with pytest.raises(ValueError, match="in the middle"):
            run_into_an_error(model)
        assert live_names(model) == ["points.0"]
    assert live_names(model) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_knows_its_own_hooks(copied):
    model = Chain()
    model.add_perma_hook("points.1", doubled)
    twin = copied(model)
    model.reset_hooks(including_permanent=True)
    assert (live_names(model), live_names(twin)) == ([], ["points.1"])
    twin.points[2].add_hook(doubled)
    assert (live_names(model), live_names(twin)) == ([], ["points.1", "points.2"])
    assert twin(torch.tensor(1.0)).item() == 4
    twin.reset_hooks(including_permanent=True)
    assert live_names(twin) == []


def test_a_copied_part_takes_nothing_else_with_it():
    model = Chain()
    model.points[0].add_hook(lambda x, hook: x * 3)  # no pickle takes a lambda
    part = pickle.loads(pickle.dumps(model.points[1]))
    part.add_hook(doubled)
    assert part(torch.tensor(1.0)).item() == 2
    assert live_names(model) == ["points.0"]


def test_a_replaced_point_is_heard_of_after_setup_and_the_old_one_no_more():
    model = Chain()
    old, model.points[1] = model.points[1], HookPoint()
    model.setup()
    old.add_hook(doubled)
    assert live_names(model) == []
    model.points[1].add_hook(doubled)
    assert live_names(model) == ["points.1"]
    model.reset_hooks()
    assert old.fwd_hooks


def test_a_point_in_two_models_tells_both():
    inner = Chain(1)
    outer = HookedRootModule()
    outer.inner = inner
    outer.setup()
    handle = inner.points[0].add_hook(doubled)
    assert list(inner._live) == list(outer._live) == [inner.points[0]]
    handle.hook.remove()
    assert list(inner._live) == list(outer._live) == []


def test_a_hook_removed_from_one_of_two():
    live, point = Live(), HookPoint()
    point.announce_to(live)
    first, second = point.add_hook(doubled), point.add_hook(doubled)
    first.hook.remove()
    assert list(live) == [point]
    second.hook.remove()
    assert list(live) == []


def test_hooks_are_away_for_a_while_and_come_back():
    class Tripled:
        def __call__(self, x, hook):
            return x * 3

    model, one = Chain(), torch.tensor(1.0)
    model.add_perma_hook("points.0", doubled)
    model.points[0].add_hook(Tripled())
    with pytest.raises(ValueError, match="in the middle"):
        run_away(model, one)
    assert model(one).item() == 6
    with model.without_hooks(Tripled):
        assert model(one).item() == 2
    assert [handle.user_hook is doubled for handle in model.forward_hooks()] == [True, False]


def run_away(model, one):
    with model.without_hooks():
        assert model(one).item() == 1
        raise ValueError("in the middle")
