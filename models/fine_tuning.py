"""Fine-tuning of any supported vision-language model on a driving log in BDD-X's format: `roadside fine-tune`.

Adapters in the decoder and two exits beside it learn from the training split; the validation split chooses the best
moment of the training and calibrates the exits; the test split scores it. The folder that comes out is served like
any other model.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import optim

from ..bus.errors import ConfigurationError, LogError, SplitError
from ..bus.kinds import KINDS
from ..datasets.drivelog import DriveLog
from ..datasets.findings import Findings
from . import checkpoints, fine_tuning_state
from .accelerators import new_accelerator
from .fine_tuning_data import Moment, Stop, choose_stops, gather, right_answer
from .fine_tuning_examples import Example, ExampleWriter, made_ahead
from .fine_tuning_folder import write_folder
from .fine_tuning_model import VOICES, Tuner, answer_losses
from .fine_tuning_options import FineTuningOptions
from .fine_tuning_plan import Plan, make_plan
from .fine_tuning_scores import Heard, Hearing
from .fine_tuning_state import PartialRun
from .loading import checked_split
from .prompt_encoder import PromptReader

_KINDS = tuple(KINDS.values())


def plan_fine_tuning(
    model: str | None, data: Path | str, options: FineTuningOptions | None = None, *, device: str = "auto"
) -> Plan:
    """What it would take, from the model's configuration alone: no weights are loaded and no video is opened."""
    options = options or FineTuningOptions()
    return make_plan(model, _stops_by_split(DriveLog.open(data), options), options, _device(device))


def fine_tune(
    model: str | None,
    data: Path | str,
    out: Path | str,
    options: FineTuningOptions | None = None,
    *,
    device: str = "auto",
    keep_adapter: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fine-tune a model (None: the bundled one), write its folder and return its card.

    A run that was stopped has left `<out>.partial`; started again with the same arguments it goes on from there.
    keep_adapter: write the adapter and name the base, instead of merged weights. warn: is told in a sentence each
    what the user should know before the training begins. progress: where to draw; a bar on stderr by default.
    Raises ModelError, LogError or ConfigurationError for what cannot be used.
    """
    options, out = options or FineTuningOptions(), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} exists already; name a new folder with --out, or remove it first")
    log = DriveLog.open(data)
    stops = _stops_by_split(log, options)
    plan = make_plan(model, stops, options, _device(device))
    if not plan.fits:
        warn(f"memory may not suffice. {plan.lines()[-1]}; take a smaller model, or a machine with more")
    progress = progress or Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
    )
    checkpoint = checkpoints.load(model)
    try:
        checked_split(checkpoint, PromptReader(checkpoint.processor))
    except SplitError as refusal:
        warn(f"{plan.model} can be fine-tuned, but no edge can host it: {refusal}")
    settings = {
        "model": f"{plan.model} {checkpoint.digest}",
        "data": f"{log.folder.resolve()} {_digest_of_annotations(log.folder)}",
        "options": asdict(options),
    }
    partial = PartialRun(out.parent / f"{out.name}.partial", settings)
    with progress:
        run = FineTuning(checkpoint, plan, options, partial, progress, keep_adapter)
        card = run.run(stops, warn)
    _move(partial.folder / "model", out)
    partial.remove()
    return card


class FineTuning:
    """One run, from the pictures to the finished folder in the partial one."""

    def __init__(
        self,
        checkpoint: checkpoints.Checkpoint,
        plan: Plan,
        options: FineTuningOptions,
        partial: PartialRun,
        progress: Progress,
        keep_adapter: bool,
    ) -> None:
        self._checkpoint, self._plan, self._options, self._partial = checkpoint, plan, options, partial
        self._progress, self._keep_adapter = progress, keep_adapter
        on_gpu = plan.device.startswith("cuda")
        self._accelerator = new_accelerator(
            gradient_accumulation_steps=options.batch_size, mixed_precision="bf16" if on_gpu else "no", cpu=not on_gpu
        )
        self._writer = ExampleWriter(checkpoint.processor)
        model: Any = checkpoint.model
        if on_gpu:
            # Frozen weights need no more than the 16 bits in which they were published.
            model.to(getattr(torch, plan.frozen_type))
        torch.manual_seed(options.seed)
        self._tuner = Tuner(model, checkpoint.exits.layers, rank=options.rank, dropout=options.dropout)
        self._state = fine_tuning_state.Progress()

    def run(self, stops: dict[str, list[Stop]], warn: Callable[[str], None]) -> dict[str, Any]:
        """Returns the card."""
        findings = Findings()
        moments = {split: self._gather(split, stops[split], findings) for split in stops}
        for reason, count in findings.counts.items():
            warn(f"{reason}: {count} left out or without telemetry ({', '.join(findings.examples[reason])} ...)")
        for split in ("train", "val"):
            if not moments[split]:
                raise LogError(f"no picture of the {split} split can be used; `roadside log info --videos` says why")
        self._warn_of_unknown_words(moments["train"], warn)
        self._learn(moments["train"], moments["val"])
        self._tuner.learn_again(self._partial.load_best())
        with self._bar("calibrating and scoring", 4) as advance:
            validation = self._hear(moments["val"])
            advance(1)
            held_out = moments["test"] or moments["val"]
            heard = {}
            for name, jpeg_of in self._pictures(held_out).items():
                heard[name] = self._hear(held_out, jpeg_of)
                advance(1)
        with self._bar("writing and asking the model", self._options.served_moments) as advance:
            return write_folder(
                self._partial.folder / "model",
                checkpoint=self._checkpoint,
                tuner=self._tuner.cpu(),
                plan=self._plan,
                options=asdict(self._options),
                state=self._state,
                validation=validation,
                heard=heard,
                scored_on="test" if moments["test"] else "val",
                asked=held_out[: self._options.served_moments],
                dropped=dict(findings.counts),
                keep_adapter=self._keep_adapter,
                advance=advance,
            )

    def _gather(self, split: str, stops: list[Stop], findings: Findings) -> list[Moment]:
        with self._bar(f"looking at the {split} split", len(stops)) as advance:
            return gather(stops, self._partial.frames, findings, advance)

    def _warn_of_unknown_words(self, moments: Sequence[Moment], warn: Callable[[str], None]) -> None:
        share = self._writer.unknown_share(right_answer(_KINDS[1], moment.segment) for moment in moments[:1000])
        if share > 0.01:
            warn(f"{share:.0%} of the answers' words are unknown to the model's tokenizer, and it can never say them")

    def _learn(self, training: Sequence[Moment], validation: Sequence[Moment]) -> None:
        options, accelerator, state = self._options, self._accelerator, self._state
        exits = list(self._tuner.exits.parameters())
        adapters = [each for name, each in self._tuner.learnt().items() if not name.startswith("exits.")]
        groups = [
            {"params": adapters, "peak_rate": options.learning_rate},
            {"params": exits, "peak_rate": options.exit_learning_rate},
        ]
        tuner, optimiser = accelerator.prepare(self._tuner, optim.AdamW(groups, weight_decay=0.0))
        if resumed := self._partial.load(optimiser):
            learnt, self._state = resumed
            state = self._state
            self._tuner.learn_again(learnt)
        updates = self._plan.updates
        samples = self._samples(training, state.updates, updates)
        with self._bar("fine-tuning", updates) as advance:
            advance(state.updates, "resumed" if state.updates else "")
            if not state.validations:
                self._validate(validation)
            for update in range(state.updates, updates):
                for group in optimiser.param_groups:
                    group["lr"] = group["peak_rate"] * schedule(update / updates, options.warm_up_share)
                state.losses.append(self._update(update, tuner, optimiser, samples))
                last = update + 1 == updates
                if last or (update + 1) % options.validate_every == 0:
                    self._validate(validation)
                if last or (update + 1) % options.checkpoint_every == 0:
                    self._partial.save(self._tuner.learnt(), optimiser.optimizer, state)
                latest = state.losses[-20:]
                mean = sum(losses["full"] for losses in latest) / len(latest)
                advance(1, f"loss {mean:.2f}, held out {state.validations[-1][1]['full']:.2f}")

    def _samples(self, moments: Sequence[Moment], first_update: int, end_update: int) -> Iterator[Example]:
        """What the updates learn from, in their order: each moment once before any comes again."""

        def choices() -> Iterator[tuple[int, int]]:
            for number in range(first_update * self._options.batch_size, end_update * self._options.batch_size):
                yield divmod(number, len(moments))

        def write(choice: tuple[int, int]) -> Example:
            in_pass, place = choice
            order = list(range(len(moments)))
            random.Random(f"{self._options.seed} {in_pass}").shuffle(order)
            kind = random.Random(f"{self._options.seed} {in_pass} {place}").choice(_KINDS)
            moment = moments[order[place]]
            return self._writer.write(moment.question(kind), right_answer(kind, moment.segment))

        return made_ahead(write, choices())

    def _update(self, update: int, tuner: Any, optimiser: Any, samples: Iterator[Example]) -> dict[str, float]:
        """One step of the optimiser; returns the mean loss by voice."""
        accelerator, batch_size = self._accelerator, self._options.batch_size
        # Dropout is drawn anew for each update, whatever came before.
        torch.manual_seed(self._options.seed * 1_000_003 + update + 1)
        self._tuner.train()
        sums = torch.zeros(len(VOICES))
        for _ in range(batch_size):
            example = _on(accelerator.device, next(samples))
            with accelerator.accumulate(tuner):
                losses = answer_losses(tuner(example.inputs, len(example.answer)), example.answer)
                accelerator.backward(losses.sum())
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self._tuner.learnt().values(), 1.0)
                optimiser.step()
                optimiser.zero_grad()
            sums += losses.detach().cpu()
        return dict(zip(VOICES, (sums / batch_size).tolist(), strict=True))

    def _validate(self, moments: Sequence[Moment]) -> None:
        losses = self._hear(moments).mean_losses()
        self._state.validations.append((self._state.updates, losses))
        if self._state.best_update == self._state.updates:
            self._partial.save_best(self._tuner.learnt())

    @torch.inference_mode()
    def _hear(self, moments: Sequence[Moment], jpeg_of: Callable[[int], bytes] | None = None) -> Heard:
        """Every voice on right answers, the three kinds in turn. jpeg_of: another picture for each moment."""

        def write(place: int) -> Example:
            kind, moment = _KINDS[place % len(_KINDS)], moments[place]
            jpeg = None if jpeg_of is None else jpeg_of(place)
            return self._writer.write(moment.question(kind, jpeg), right_answer(kind, moment.segment))

        self._tuner.eval()
        hearing = Hearing()
        for example in made_ahead(write, range(len(moments))):
            here = _on(self._accelerator.device, example)
            with self._accelerator.autocast():
                logits = self._tuner(here.inputs, len(here.answer))
            hearing.add(logits, here.answer)
        return hearing.heard()

    @staticmethod
    def _pictures(moments: Sequence[Moment]) -> dict[str, Callable[[int], bytes] | None]:
        """The pictures that are scored: the right ones, black ones, and everybody's neighbour's."""
        return {
            "picture": None,
            "blank-image": lambda place: moments[place].blank_picture(),
            "another-image": lambda place: moments[(place + len(moments) // 2) % len(moments)].picture.read_bytes(),
        }

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[_Advance]:
        task = self._progress.add_task(name, total=total, note="")

        def advance(amount: int, note: str = "") -> None:
            self._progress.update(task, advance=amount, note=note)

        yield advance
        self._progress.update(task, completed=total)


_Advance = Callable[..., None]


def schedule(done_share: float, warm_up_share: float) -> float:
    """The learning rate as a share of its peak: up in a line, then down in a line to 5%."""
    if done_share < warm_up_share:
        return (done_share + 0.1 * warm_up_share) / (1.1 * warm_up_share)
    return 0.05 + 0.95 * (1 - done_share) / (1 - warm_up_share)


def _stops_by_split(log: DriveLog, options: FineTuningOptions) -> dict[str, list[Stop]]:
    """Raises LogError for a folder without videos, or with an empty training or validation split."""
    stops = {
        split: choose_stops(
            log,
            split,
            per_segment=options.moments_per_segment,
            seed=options.seed,
            at_most=None if split == "train" else options.held_out_moments,
        )
        for split in ("train", "val", "test")
    }
    for split, why in (("train", "nothing can be learnt"), ("val", "the exits cannot be calibrated")):
        if not stops[split]:
            raise LogError(
                f"{log.folder / f'{split}.txt'} lists no annotated clip whose video is there, so {why}: "
                "list some there as <number>_<name>, or put their videos into the folder"
            )
    return stops


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"there is no device {name!r}; give --device auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("no GPU is to be seen; leave out --device, or install a build of torch for it")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _on(device: torch.device, example: Example) -> Example:
    return Example({name: value.to(device) for name, value in example.inputs.items()}, example.answer.to(device))


def _digest_of_annotations(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.txt")]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _move(folder: Path, out: Path) -> None:
    if out.exists():
        out.rmdir()
    shutil.move(folder, out)
