"""The planner: what tiles cost, what fits, and what happens when memory runs out after all."""

from __future__ import annotations

import gc
import math
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from support.tiny import picture

from style_transfer.compute import allocator
from style_transfer.compute.distributed import LOCAL
from style_transfer.engine import iterate
from style_transfer.engine import loop as engine
from style_transfer.errors import MemoryLimitError, SettingsError
from style_transfer.evaluation import memory, planning
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits, Sweep
from style_transfer.geometry.scales import plan
from style_transfer.losses import guidance as masks
from style_transfer.networks import VGG19
from style_transfer.networks.graph import Network
from style_transfer.settings.settings import Settings

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")
LAYERS = {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"}


@pytest.fixture
def tiny(make_network: MakeNetwork) -> Network:
    return make_network()


def run(network: Network, **about: object) -> list[iterate.Iterate]:
    settings = Settings(min_scale=90, end_scale="128", initial_iterations=3, iterations=3, **about)  # type: ignore[arg-type]
    content, style = picture(1, 96, 128, network.dtype), picture(2, 80, 100, network.dtype)
    return list(engine.stylize(content, [style], settings, networks=[network]))


def groups(root: Path, limits: dict[str, tuple[str, int, int]], names: tuple[str, str, str]) -> None:
    """Make the files of control groups below `root`, each with a limit, what is used, and how much of that is idle cache."""
    for group, (limit, used, idle) in limits.items():
        (root / group).mkdir(parents=True, exist_ok=True)
        about = f"anon 5\n{names[2]} {idle}\nactive_file 7\n"
        for name, text in (*zip(names[:2], (limit, str(used)), strict=True), ("memory.stat", about)):
            (root / group / name).write_text(text + "\n")


def test_what_a_container_leaves_is_its_limit_less_what_is_not_idle_cache(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert memory.left_to_group(tmp_path, own) == math.inf
    second = ("memory.max", "memory.current", "inactive_file")
    groups(tmp_path, {"": ("max", 900, 0), "job": ("1000", 800, 300), "job/step": ("max", 700, 200)}, second)
    for path, left in (("/job/step", 500), ("/job", 500), ("/", math.inf), ("/other/job", math.inf), ("/../x", math.inf)):
        own.write_text(f"0::{path}\n")
        assert memory.left_to_group(tmp_path, own) == left, path
    groups(tmp_path, {"": ("600", 550, 30)}, second)
    own.write_text("0::/job/step\n")
    assert memory.left_to_group(tmp_path, own) == 80
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    groups(tmp_path / "v1" / "memory", {"": (str(2**63 - 4096), 900, 0), "docker": ("1000", 800, 150)}, first)
    own.write_text("4:cpu,cpuacct:/docker\n7:hugetlb,memory:/docker\n")
    assert memory.left_to_group(tmp_path / "v1", own) == 350


def test_state_is_at_most_100_bytes_a_pixel_for_vgg19() -> None:
    network = Network.__new__(Network)
    network.spec, network.features = VGG19, torch.float32
    assert memory.state_bytes(network, (3072, 4096), Settings(network="vgg19")) == 3072 * 4096 * (60 + 32)


@pytest.mark.parametrize("about", [{}, {"extra_weight": 1.0, "extra_loss": "histogram"}], ids=str)
def test_what_masks_hold_is_counted(about: dict[str, object], make_network: MakeNetwork) -> None:
    network, size = make_network(), (96, 64)
    settings = Settings(network="vgg19", **about)  # type: ignore[arg-type]
    content, mask = picture(1, *size, torch.float32), torch.ones(1, 1, *size)
    regions = [masks.StageRegion(mask / 2, {0: None}), masks.StageRegion(mask / 3, {0: None})]
    objective = Objective([network], content, [picture(2, 40, 40, torch.float32)], settings, regions=regions)
    cover = iterate.Cover(masks.coverage(regions), content)
    held = cover.share.nbytes + cover.content.nbytes
    held += sum(term.loss.guide.nbytes for term in objective.terms if isinstance(term.loss, masks.GuidedLoss))
    plain, masked = (memory.state_bytes(network, size, settings, regions=count) for count in (0, 2))
    assert masked - plain == held
    shared = [memory.state_bytes(network, size, settings, regions=count, processes=4) for count in (0, 2)]
    assert shared[0] == plain / 4 and (masked - plain) / 4 < shared[1] - shared[0] < masked - plain


def test_masks_leave_less_room_for_tiles(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network, settings = make_network(), Settings(network="vgg19", memory="1GB")
    size = (4000, 4000)
    state = memory.state_bytes(network, size, settings)
    monkeypatch.setattr(memory, "costs", lambda *_: ())
    monkeypatch.setattr(memory, "plan", lambda *_, **__: UNLIMITED)
    monkeypatch.setattr(memory, "bound", lambda *_: 0.0)
    monkeypatch.setattr(memory, "used_bytes", lambda _: 10**9 - memory.LIBRARIES - int(1.1 * state))
    assert planning.plan_for([network], size, settings).limits == UNLIMITED
    with pytest.raises(MemoryLimitError, match="4000x4000 needs"):
        planning.plan_for([network], size, settings, regions=2)


def test_costs_grow_with_what_a_graph_holds(tiny: Network) -> None:
    found = memory.cost(tiny, (tuple(sorted(LAYERS)), True, 0))
    widths = [4, 4, 4 / 4, 6 / 4, 6 / 4, 6 / 16, 8 / 16, 8 / 16, 8 / 16, 8 / 16]
    assert 0.8 * 4 * sum(widths) < found.kept < 3 * 4 * sum(widths)
    assert found.peak >= found.kept and found.seconds > 0


@pytest.mark.parametrize("hands", [1, 2, 4])
def test_plans_stay_within_their_budget(hands: int, tiny: Network) -> None:
    size = (3000, 2000)
    kept_before = -1
    for budget in (60_000_000, 200_000_000, 600_000_000, 20_000_000_000):
        limits = memory.plan(tiny, size, LAYERS, budget=budget, hands=hands)
        sweep = Sweep([tiny] * hands, size, LAYERS, limits)
        kept = sum(tile.read.area for part in sweep.parts for tile in part.kept)
        assert kept >= kept_before or limits == UNLIMITED
        kept_before = kept
        for part in sweep.parts:
            price = memory.cost(tiny, (tuple(sorted(LAYERS)), not limits.whole, part.index))
            for tiles in part.tiles:
                work = max(tile.read.area for tile in tiles) * price.peak
                held = sum(tile.read.area for tile in tiles if tile in part.kept) * price.kept
                assert work <= budget and held <= budget
    assert limits == UNLIMITED if hands == 1 else sum(map(len, (part.kept for part in sweep.parts))) == sum(sweep.tiles)


def test_the_picture_moves_to_the_host_where_a_device_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cuda:0"),)
    free = {"cuda": 24e9, "cpu": 64e9}
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(free[device.type]))
    monkeypatch.setattr(memory, "cost", lambda network, key: memory.Cost(1500.0, 1100.0, 1e-6))
    size = (6144, 8192)
    assert not planning.plan_for([network], size, Settings()).host  # 4.6 GB of state
    free["cuda"] = 6e9
    plan = planning.plan_for([network], size, Settings())
    assert plan.host and not plan.limits.whole and plan.home(network) == torch.device("cpu")
    assert not memory.cramped(plan.limits, network, LAYERS)
    free["cuda"] = 4e9  # less than the state
    assert planning.plan_for([network], size, Settings()).host
    free["cpu"] = 3e9
    with pytest.raises(MemoryLimitError, match="needs 4.6 GB beside the tiles, but only 2.5 GB of memory are left on cpu"):
        planning.plan_for([network], size, Settings())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_picture_on_the_host_comes_to_the_same(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(devices=(torch.device("cuda:0"),))
    there = run(network, tile="32")[-1]
    plan = planning.plan_for([network], (96, 128), Settings(tile="32"))
    monkeypatch.setattr(planning, "plan_for", lambda *_: planning.Plan(plan.limits, host=True))
    here = run(network, tile="32")[-1]
    assert here.average.value().device.type == "cpu"
    assert torch.allclose(here.image(), there.image(), atol=1e-3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again() -> None:
    """In a process of its own: pages that the system hands out, and clears, while tensors of 40 MB come and go."""
    program = """
import resource, sys, torch
from style_transfer.compute import allocator
allocator.keep_freed(sys.argv[1] == "keep")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept, given = (
        int(subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "give")
    )
    assert kept < given / 4


def test_no_feature_map_has_2_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cuda:0"),)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**15)
    monkeypatch.setattr(memory, "cost", lambda network, key: memory.Cost(1500.0, 1100.0, 1e-6))
    assert planning.plan_for([network], (4096, 7000), Settings()).limits == UNLIMITED
    size = (8192, 12288)
    for settings in (Settings(), Settings(tile="30000")):
        sweep = Sweep([network], size, LAYERS, planning.plan_for([network], size, settings).limits)
        for part in sweep.parts:
            assert max(tile.read.area for hand in part.tiles for tile in hand) * memory._widest(part.segment) < 2**31
    with pytest.raises(SettingsError, match="more than 2.31 elements; take --tile auto"):
        planning.plan_for([network], size, Settings(tile="off"))


def test_freed_memory_is_kept_where_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.__new__(Network)
    network.spec, network.features, network.devices = VGG19, torch.float32, (torch.device("cpu"),)
    monkeypatch.setattr(memory, "cost", lambda network, key: memory.Cost(4000.0, 1250.0, 1e-6))  # by a small probe
    monkeypatch.setattr(memory, "used_bytes", lambda device: 10**9)
    monkeypatch.setattr(memory, "_growth", lambda network, key: (2e8, 1500.0))  # by large ones: 9.6 GB at the peak
    for gigabytes, whole, roomy in ((22, True, True), (20, True, False), (14, False, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=gigabytes * 10**9: free)
        plan = planning.plan_for([network], (2172, 2896), Settings(network="vgg19"))
        assert (plan.limits.whole, plan.roomy) == (whole, roomy)
        assert plan.most == 10**9 + 0.85 * gigabytes * 10**9


def test_kept_memory_is_given_back_when_it_has_become_too_much(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(allocator, "trim", lambda: given.append(1))
    (stage,) = plan((40, 50), [(40, 50)], Settings(min_scale=50, end_scale="50"))
    shop = planning.Workshop([make_network()], stage, Settings(), LOCAL, 0)
    limit = memory.used_bytes(CPU) + memory.SHARE * memory.free_bytes(CPU)
    for used, trims in ((0.9 * limit, 0), (1.1 * limit, 1)):
        monkeypatch.setattr(memory, "used_bytes", lambda device, used=used: used)
        assert shop.attempt(lambda limits: limits) == shop.limits
        assert len(given) == trims


def test_a_limit_makes_tiles_and_the_same_picture(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = make_network(dtype=torch.float64)
    whole = run(exact)
    assert all(iterate.tiles == (1,) for iterate in whole)
    tiled = run(exact, tile="32")
    assert all(sum(iterate.tiles) > 4 for iterate in tiled)
    for a, b in zip(whole, tiled, strict=True):
        assert float(a.loss) == pytest.approx(float(b.loss), rel=1e-6)
    used = 10**9
    monkeypatch.setattr(memory, "used_bytes", lambda device: used)
    monkeypatch.setattr(memory, "LIBRARIES", 0)
    room = 128 * 96 * 100 + 400_000
    limited = run(make_network(), memory=str(used + room))
    # in float32 rounding grows from step to step, by the sign of content differences near zero above all
    assert limited[-1].tiles > (1,) and float(limited[-1].loss) == pytest.approx(float(whole[-1].loss), rel=2e-2)
    with pytest.raises(MemoryLimitError, match="beside the tiles"):
        run(make_network(), memory=str(used + 10))


def test_free_memory_is_what_the_system_says() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total


class Failing:
    """Fails like an allocator for the first so many sweeps whose tiles are larger than a limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self.seen = times, []  # type: ignore[var-annotated]
        original = Sweep.gradient

        def gradient(sweep: Sweep, *more: object) -> torch.Tensor:
            self.seen.append(sweep.tiles)
            if self.left:
                self.left -= 1
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 1 bytes"
                )
            return original(sweep, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(Sweep, "gradient", gradient)


def test_a_step_that_runs_out_of_memory_is_done_again_in_smaller_tiles(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = make_network(dtype=torch.float64)
    expected = run(exact)
    failing = Failing(monkeypatch, 3)
    found = run(exact)
    assert len(found) == len(expected)
    assert [sum(tiles) for tiles in failing.seen[:4]] == sorted(sum(tiles) for tiles in failing.seen[:4])
    assert failing.seen[0] == (1,) and sum(failing.seen[3]) > 2
    for a, b in zip(expected, found, strict=True):
        assert float(a.loss) == pytest.approx(float(b.loss), rel=1e-6)
    assert torch.allclose(expected[-1].image(), found[-1].image(), atol=1e-3)


def test_memory_that_is_never_enough_ends_with_an_error(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, 10**6)
    with pytest.raises(MemoryLimitError, match="even in small tiles"):
        run(tiny)
    assert len(failing.seen) == planning.RETRIES


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Sweep, "gradient", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(tiny)


def test_smaller_limits_end_at_the_smallest_tiles(tiny: Network) -> None:
    limits, size = UNLIMITED, (500, 700)
    areas = []
    for _ in range(30):
        limits = memory.smaller(limits, size, tiny)
        areas.append(limits.areas)
    assert areas == sorted(areas, reverse=True)
    assert limits == Limits(False, (1, 1), (0, 0))


def test_what_was_measured_of_a_network_goes_with_it(make_network: MakeNetwork) -> None:
    network = make_network()
    found = memory.cost(network, (tuple(sorted(LAYERS)), True, 0))
    assert memory.cost(network, (tuple(sorted(LAYERS)), True, 0)) is found
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None
