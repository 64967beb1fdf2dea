"""The loop of optimizer steps: what makes it observable, and what makes it survive a kill."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from safetydpo_kedro.checkpoints import Checkpoints
from safetydpo_kedro.memory import is_out_of_memory
from safetydpo_kedro.preference.history import History
from safetydpo_kedro.preference.objective import LOSS_METRICS, Objective, Part
from safetydpo_kedro.preference.optimizers import make_optimizer
from safetydpo_kedro.preference.processes import Processes
from safetydpo_kedro.preference.validation import BestAdapter, Validation
from safetydpo_kedro.progress import progress_bar

log = logging.getLogger(__name__)

OnStep = Callable[[int, Mapping[str, float]], None]


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or no number."""


class Loop:
    """Optimizer steps from the last checkpoint to the end.

    Args:
        name: shown in the progress bar.
        objective: what is minimized.
        weights: of the adapter in training.
        checkpoints: of the run.
        validation: looks at held-out pairs, in the main process alone; None: there are none.
        processes: that share a step.
        on_step: called with every step's number and metrics in the main process.

    Attributes:
        history: of all steps, also those before the last checkpoint.
        images: step → held-out prompts as drawn after it, uint8 ``[N, H, W, 3]``.
    """

    def __init__(
        self,
        name: str,
        objective: Objective,
        weights: list[nn.Parameter],
        checkpoints: Checkpoints,
        validation: Validation | None,
        processes: Processes,
        on_step: OnStep,
    ) -> None:
        p = objective.parameters
        self.name = name
        self.objective = objective
        self.parameters = p
        self.weights = weights
        self.checkpoints = checkpoints
        self.validation = validation
        self.processes = processes
        self.on_step = on_step
        self.optimizer = make_optimizer(weights, p)
        self.schedule = get_scheduler(
            p.schedule,
            self.optimizer,
            num_warmup_steps=p.warmup_steps,
            num_training_steps=p.steps,
        )
        self.history = History(p.steps)
        self.images: dict[int, Tensor] = {}
        self.best = BestAdapter(weights, p.validation.patience or p.steps + 1)

    def run(self) -> None:
        """Do what is left to do."""
        self._restore()
        done, steps = self.history.done, self.parameters.steps
        if done == 0 and self.validation is not None:
            self.images[0] = self.validation.draw()
        main = self.processes.is_main
        bar = progress_bar(
            desc=self.name,
            initial=done,
            total=steps,
            mininterval=2.0,
            unit="step",
            disable=not main,
        )
        stopped = self.processes.agree(self.best.exhausted)
        for step in range(done, steps):
            if stopped:
                break
            with self._explained(step):
                metrics = self.step(step)
                if self._is_due(step + 1):
                    metrics |= self._look(step + 1)
                    stopped = self.processes.agree(self.best.exhausted)
            self.history.add(metrics)
            if main:
                self.on_step(step + 1, metrics)
                bar.set_postfix(_shown(metrics), refresh=False)
                bar.update()
            last = stopped or step + 1 == steps
            if main and (last or (step + 1) % self.parameters.checkpoints.every == 0):
                self._save()
        bar.close()
        if self.parameters.validation.patience:
            self.best.put_back()

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step, over all processes and their forwards.

        Raises:
            NonFiniteError: loss or gradient is not finite, and may not be.
        """
        started = time.perf_counter()
        p, processes = self.parameters, self.processes
        each = p.batch_size // processes.count  # a multiple, as the parameters are checked
        forwards = -(-each // (p.micro_batch_size or each))
        parts = self.objective.parts(step, processes.count * forwards)
        shares = []
        for part in processes.share(parts):
            loss, values = self.objective.loss(self.objective.inputs(part))
            loss.backward()
            shares.append(torch.stack([value.double() for value in values.values()]))
        processes.add_up_gradients(self.weights)
        length = nn.utils.clip_grad_norm_(self.weights, p.max_gradient_norm)
        sums = processes.add_up(reduce(torch.add, shares))
        # The one point of a step that waits for the device.
        *means, norm = torch.cat([sums, length.double().reshape(1)]).tolist()
        metrics: dict[str, float] = dict(zip(LOSS_METRICS, means, strict=True))
        finite = math.isfinite(norm) and math.isfinite(metrics["loss"])
        metrics |= {
            "gradient_norm": norm,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped": float(not finite),
        }
        if finite:
            self.optimizer.step()
        elif self.history.skipped >= p.nonfinite_steps:
            raise NonFiniteError(self._explain(step, parts, metrics))
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        metrics["samples_per_second"] = p.batch_size / (time.perf_counter() - started)
        return metrics

    def _is_due(self, step: int) -> bool:
        """Whether held-out pairs are looked at after ``step`` steps; the same in all processes."""
        every = self.parameters.validation.every
        if self.objective.data.held_out is None or every is None:
            return False
        return step % every == 0 or step == self.parameters.steps

    def _look(self, step: int) -> dict[str, float]:
        if self.validation is None:
            return {}
        look = self.validation.look()
        self.best.see(look.accuracy)
        self.images[step] = self.validation.draw()
        return {"held_out_accuracy": look.accuracy, "held_out_loss": look.loss}

    def _restore(self) -> None:
        """From the last checkpoint; the main process first, because it tidies up."""
        for turn in (True, False):
            if self.processes.is_main == turn:
                restored = self.checkpoints.restore(
                    {"adapter": nn.ParameterList(self.weights)}, self.optimizer, self.schedule
                )
                if restored is not None:
                    log.info("%s: going on from step %d", self.name, restored.step)
                    self.history.load_state_dict(restored.state["history"])
                    self.best.load_state_dict(restored.state["best"])
                    self.images = {int(k): v for k, v in restored.state["images"].items()}
            self.processes.wait()

    def _save(self) -> None:
        self.checkpoints.save(
            self.history.done,
            {"adapter": nn.ParameterList(self.weights)},
            self.optimizer,
            self.schedule,
            {
                "history": self.history.state_dict(),
                "best": self.best.state_dict(),
                "images": {str(step): images for step, images in self.images.items()},
            },
        )

    @contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Say what to do if memory runs out in a step.

        Raises:
            MemoryError: it has run out.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            p, last = self.parameters, self.checkpoints.latest
            pairs = p.micro_batch_size or p.batch_size // self.processes.count
            advice = f"lower micro_batch_size (pairs per forward, now {pairs})" if pairs > 1 else ""
            more = "" if p.gradient_checkpointing else "set gradient_checkpointing to true"
            ways = ", ".join(filter(None, [advice, more, "free memory"]))
            raise MemoryError(
                f"{self.name}: out of memory on {self.weights[0].device} in step {step + 1} of "
                f"{p.steps}: {ways}; then run the same command again. It goes on from "
                f"{last or 'the start: there is no checkpoint yet'}"
            ) from error

    def _explain(self, step: int, parts: Sequence[Part], metrics: Mapping[str, float]) -> str:
        ids = self.objective.data.pairs.ids[torch.cat([part.rows.pairs for part in parts])]
        p, last = self.parameters, self.checkpoints.latest
        return (
            f"{self.name}: loss {metrics['loss']:g} and gradient norm {metrics['gradient_norm']:g} "
            f"in step {step + 1} of {p.steps}, on the pairs {sorted(set(ids.tolist()))}; "
            f"{self.history.skipped} steps were skipped before, nonfinite_steps = "
            f"{p.nonfinite_steps}. Last good checkpoint: {last or 'none'}. Lower the learning rate "
            f"or beta, look at these pairs, or raise nonfinite_steps to skip such steps"
        )


def _shown(metrics: Mapping[str, float]) -> dict[str, str]:
    """What the progress bar shows beside steps and time left."""
    return {
        "loss": f"{metrics['loss']:.4f}",
        "accuracy": f"{metrics['implicit_accuracy']:.2f}",
        "pairs/s": f"{metrics['samples_per_second']:.1f}",
    }
