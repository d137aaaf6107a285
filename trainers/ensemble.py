"""Plain training of one network, or of several that will be asked together.

Members that start apart: Beluch et al., "The Power of Ensembles for Active Learning", CVPR 2018. Members that are one
run at the ends of its cycles: Huang et al., "Snapshot Ensembles", ICLR 2017, https://arxiv.org/abs/1704.00109; for
active learning, Chitta et al. 2019, "Training Data Subset Search with Ensemble Active Learning",
https://arxiv.org/abs/1905.12737 (there the last checkpoints of one run).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn

from trainers import supervised
from trainers.copies import one_copy
from trainers.pool import Pool
from trainers.run import Run


@dataclass(frozen=True, kw_only=True)
class Plan(supervised.Plan):
    """Defaults: ours, for small networks in seconds."""

    snapshots: bool = False  # members are one run's weights at the ends of its cycles, `steps` in all


def train(
    run: Run,
    pool: Pool,
    plan: Plan,
    *,
    trunk: nn.Module,  # (b c h w) -> (b d)
    head: nn.Module,  # (b d) -> (b k)
    members: Sequence[nn.Module] = (),  # more of them, trunk and head in one: (b c h w) -> (b k)
) -> None:
    plan = supervised.grown(plan, pool)
    if plan.snapshots and members:
        cycle(run, pool, plan, nn.Sequential(trunk, head), members)
    else:
        alone(run, pool, plan, trunk=trunk, head=head, members=members)


@one_copy
def alone(run: Run, pool: Pool, plan: Plan, *, trunk: nn.Module, head: nn.Module, members: Sequence[nn.Module]) -> None:
    """Each on its own: its own start, its own batches."""
    supervised.train(run, pool, plan, trunk=trunk, head=head)
    for i, member in enumerate(members, 1):
        task, task_step = run.setup(member, supervised.optimizer(plan, member), f"member {i}")
        labeled = run.stream(pool.labeled, plan.batch)
        supervised.learn(run, plan, run.steps(plan.steps, f"member {i}"), labeled, task=task, task_step=task_step)


def cycle(run: Run, pool: Pool, plan: Plan, net: nn.Module, members: Sequence[nn.Module]) -> None:
    """One network through as many cycles of the schedule as there are members; each end but the last is kept."""
    task, task_step = run.setup(net, supervised.optimizer(plan, net), "task")
    labeled = run.stream(pool.labeled, plan.batch)
    for i in range(len(members) + 1):
        part = replace(plan, steps=plan.steps * (i + 1) // (len(members) + 1) - plan.steps * i // (len(members) + 1))
        supervised.learn(run, part, run.steps(part.steps, f"cycle {i}"), labeled, task=task, task_step=task_step)
        if i < len(members):
            members[i].load_state_dict(run.once(f"cycle {i}", lambda: deepcopy(net.state_dict())))
