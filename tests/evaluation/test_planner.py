"""The planner: what tiles cost, and what fits."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable

import pytest
import torch
from support.engine_runs import iterates_of
from support.settings import resolved
from support.tiny import picture

from style_transfer.compute import memory
from style_transfer.engine.iterate import BlendMask
from style_transfer.errors import MemoryLimitError, SettingsError
from style_transfer.evaluation import costs, planner
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Sweep
from style_transfer.losses import StyleLoss
from style_transfer.losses.guidance import StageRegion, coverage
from style_transfer.networks import VGG19
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")
LAYERS = {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"}


def test_the_time_of_a_probe_includes_the_work_that_a_device_has_not_done_yet(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asynchronous device: a probe starts 100 s of work, which only synchronizing waits for."""
    clock, pending, probe = [0.0], [0.0], costs._probe

    def start(*about: object) -> tuple[torch.Tensor, int]:
        pending[0] += 100
        return probe(*about)  # type: ignore[arg-type]

    def synchronize(devices: object) -> None:
        clock[0], pending[0] = clock[0] + pending[0], 0

    monkeypatch.setattr(costs, "_probe", start)
    monkeypatch.setattr(costs.devices, "synchronize", synchronize)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    cells = 2 * costs.PROBE_CELLS
    assert costs.cost(make_network(), (("relu1_1",), False, 0)).seconds == pytest.approx(100 / cells**2)


def test_state_for_each_pixel_with_vgg19() -> None:
    network = Network.__new__(Network)
    network.spec, network.features = VGG19, torch.float32
    assert planner.state_bytes(network, (3072, 4096), resolved()) == 3072 * 4096 * (60 + 32)
    settings = resolved(network="vgg19")
    network.spec = VGG19.configured(settings)
    assert planner.state_bytes(network, (3072, 4096), settings) == 3072 * 4096 * (60 + 64 + 24)


@pytest.mark.parametrize("about", [{}, {"extra_weight": 1.0, "extra_loss": "histogram"}], ids=str)
def test_what_masks_hold_is_counted(about: dict[str, object], make_network: MakeNetwork) -> None:
    network, size = make_network(), (96, 64)
    settings = resolved(network="vgg19", **about)
    content, mask = picture(1, *size, torch.float32), torch.ones(1, 1, *size)
    regions = [StageRegion(mask / 2, {0: None}), StageRegion(mask / 3, {0: None})]
    objective = Objective([network], content, [picture(2, 40, 40, torch.float32)], settings, regions=regions)
    mask_of_all = BlendMask(coverage(regions), content)
    held = mask_of_all.share.nbytes + mask_of_all.content.nbytes
    guides = {id(term.loss.guide): term.loss.guide for term in objective.terms if isinstance(term.loss, StyleLoss)}
    held += sum(guide.nbytes for guide in guides.values())
    plain, masked = (planner.state_bytes(network, size, settings, regions=count) for count in (0, 2))
    assert masked - plain == held
    shared = [planner.state_bytes(network, size, settings, regions=count, processes=4) for count in (0, 2)]
    assert shared[0] == plain / 4 and (masked - plain) / 4 < shared[1] - shared[0] < masked - plain


def test_masks_leave_less_room_for_tiles(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network, settings = make_network(), resolved(network="vgg19", memory="1GB")
    size = (4000, 4000)
    state = planner.state_bytes(network, size, settings)
    monkeypatch.setattr(costs, "costs", lambda *_: ())
    monkeypatch.setattr(planner, "fit_tiles", lambda *_, **__: UNLIMITED)
    monkeypatch.setattr(costs, "bound", lambda *_: 0.0)
    monkeypatch.setattr(planner, "least_budget", lambda *_: 0.0)
    monkeypatch.setattr(memory, "used_bytes", lambda _: 10**9 - planner.LIBRARIES - int(1.1 * state))
    assert planner.plan_for([network], size, settings).limits == UNLIMITED
    with pytest.raises(MemoryLimitError, match="4000x4000 needs"):
        planner.plan_for([network], size, settings, regions=2)


def test_costs_grow_with_what_a_graph_holds(tiny: Network) -> None:
    found = costs.cost(tiny, (tuple(sorted(LAYERS)), True, 0))
    widths = [4, 4, 4 / 4, 6 / 4, 6 / 4, 6 / 16, 8 / 16, 8 / 16, 8 / 16, 8 / 16]
    assert 0.8 * 4 * sum(widths) < found.kept < 3 * 4 * sum(widths)
    assert found.peak >= found.kept and found.seconds > 0


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_plans_stay_within_their_budget(workers: int, tiny: Network) -> None:
    size = (3000, 2000)
    kept_before = -1
    for budget in (60_000_000, 200_000_000, 600_000_000, 20_000_000_000):
        limits = planner.fit_tiles(tiny, size, LAYERS, budget=budget, workers=workers)
        sweep = Sweep([tiny] * workers, size, LAYERS, limits)
        kept = sum(tile.read.area for part in sweep.parts for tile in part.kept)
        assert kept >= kept_before or limits == UNLIMITED
        kept_before = kept
        for part in sweep.parts:
            price = costs.cost(tiny, (tuple(sorted(LAYERS)), not limits.whole, part.index))
            for tiles in part.tiles:
                work = max(tile.read.area for tile in tiles) * price.peak
                held = sum(tile.read.area for tile in tiles if tile in part.kept) * price.kept
                assert work <= budget and held <= budget
    assert limits == UNLIMITED if workers == 1 else sum(map(len, (part.kept for part in sweep.parts))) == sum(sweep.tiles)


def test_the_picture_moves_to_the_host_where_a_device_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cuda:0"),)
    free = {"cuda": 24e9, "cpu": 64e9}
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(free[device.type]))
    monkeypatch.setattr(costs, "cost", lambda network, key: costs.Cost(1500.0, 1100.0, 1e-6))
    size = (6144, 8192)
    assert not planner.plan_for([network], size, resolved()).host  # 4.6 GB of state
    free["cuda"] = 6e9
    plan = planner.plan_for([network], size, resolved())
    assert plan.host and not plan.limits.whole and plan.state_device(network) == torch.device("cpu")
    assert not planner.cramped(plan.limits, network, size, LAYERS, 320)
    free["cuda"] = 4e9  # less than the state
    assert planner.plan_for([network], size, resolved()).host
    free["cpu"] = 3e9
    with pytest.raises(MemoryLimitError, match="needs 4.6 GB and .* tiles, but only 2.5 GB of memory are left on cpu"):
        planner.plan_for([network], size, resolved())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_picture_on_the_host_comes_to_the_same(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(devices=(torch.device("cuda:0"),))
    there = iterates_of(network, tile="32")[-1]
    plan = planner.plan_for([network], (96, 128), resolved(tile="32"))
    monkeypatch.setattr(planner, "plan_for", lambda *_: planner.Plan(plan.limits, host=True))
    here = iterates_of(network, tile="32")[-1]
    assert here.average.value().device.type == "cpu"
    assert torch.allclose(here.image(), there.image(), atol=1e-3)


def test_no_feature_map_has_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cuda:0"),)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**15)
    monkeypatch.setattr(costs, "cost", lambda network, key: costs.Cost(1500.0, 1100.0, 1e-6))
    assert planner.plan_for([network], (4096, 7000), resolved()).limits == UNLIMITED
    size = (8192, 12288)
    for settings in (resolved(), resolved(tile="30000")):
        sweep = Sweep([network], size, LAYERS, planner.plan_for([network], size, settings).limits)
        for part in sweep.parts:
            assert max(tile.read.area for own in part.tiles for tile in own) * costs.widest(part.segment) < 2**31
    with pytest.raises(SettingsError, match="more than 2.31 elements; take --tile auto"):
        planner.plan_for([network], size, resolved(tile="off"))


def test_freed_memory_is_kept_where_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cpu"),)
    monkeypatch.setattr(costs, "cost", lambda network, key: costs.Cost(4000.0, 1250.0, 1e-6))  # by a small probe
    monkeypatch.setattr(memory, "used_bytes", lambda device: 10**9)
    monkeypatch.setattr(costs, "growth", lambda network, key: (2e8, 1500.0))  # by large ones: 9.6 GB at the peak
    for gigabytes, whole, roomy in ((22, True, True), (20, True, False), (14, False, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=gigabytes * 10**9: free)
        plan = planner.plan_for([network], (2172, 2896), resolved(network="vgg19"))
        assert (plan.limits.whole, plan.keeps_freed) == (whole, roomy)
        assert plan.process_limit == 10**9 + 0.85 * gigabytes * 10**9


def test_a_limit_makes_tiles_and_the_same_picture(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = make_network(dtype=torch.float64)
    whole = iterates_of(exact)
    assert all(iterate.tiles == (1,) for iterate in whole)
    tiled = iterates_of(exact, tile="32")
    assert all(sum(iterate.tiles) > 4 for iterate in tiled)
    for a, b in zip(whole, tiled, strict=True):
        assert float(a.loss) == pytest.approx(float(b.loss), rel=1e-6)
    used = 10**9
    monkeypatch.setattr(memory, "used_bytes", lambda device: used)
    monkeypatch.setattr(planner, "LIBRARIES", 0)
    monkeypatch.setattr(planner, "SMALLEST_SIDE", 4)
    room = 128 * 96 * 100 + 400_000
    limited = iterates_of(make_network(), memory=str(used + room))
    # in float32 rounding grows from step to step, by the sign of content differences near zero above all
    assert limited[-1].tiles > (1,) and float(limited[-1].loss) == pytest.approx(float(whole[-1].loss), rel=2e-2)
    with pytest.raises(MemoryLimitError, match=r"is too little: the program takes 1\.0 GB.*give --memory 1\.\d\dGB"):
        iterates_of(make_network(), memory=str(used + 10))


def test_limits_have_no_cliff_and_a_refusal_names_one_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cpu"),)
    network.measured = {}
    monkeypatch.setattr(costs, "cost", lambda network, key: costs.Cost(4000.0, 1250.0, 1e-6))
    monkeypatch.setattr(costs, "growth", lambda network, key: (2e8, 1500.0))
    used = 6 * 10**8
    monkeypatch.setattr(memory, "used_bytes", lambda device: used)
    size, work, refused = (1536, 2048), [], []
    for megabytes in range(700, 6000, 50):
        try:
            plan = planner.plan_for([network], size, resolved(network="vgg19", memory=f"{megabytes}MB"))
        except MemoryLimitError as error:
            refused.append(str(error))
            continue
        sweep = Sweep([network], size, LAYERS, plan.limits)
        work.append(sum(tile.read.area * part.segment.geometry.stride**2 for part in sweep.parts for tile in part.tiles[0]))
    assert len(refused) > 5 and len(work) > 50 and max(work) < 4 * min(work)
    named = re.search(r"give --memory (\S+GB)", refused[-1])
    assert named and planner.plan_for([network], size, resolved(network="vgg19", memory=named[1])).limits.areas


def test_what_was_measured_of_a_network_goes_with_it(make_network: MakeNetwork) -> None:
    network = make_network()
    found = costs.cost(network, (tuple(sorted(LAYERS)), True, 0))
    assert costs.cost(network, (tuple(sorted(LAYERS)), True, 0)) is found
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_a_device_whose_memory_is_unknown_is_tried_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("xpu:0"),)
    assert planner.plan_for([network], (400, 500), resolved()).limits == UNLIMITED
    assert "the free memory of xpu:0 is unknown; give --memory" in caplog.text
