"""One training in memory: TRL's ``SFTTrainer`` over tokenised and masked rows.

The loss of an optimizer step is the sum of the token losses of all its rows over the number of their targets (the
mean over the tokens of the global batch, as TRL and transformers count it), for any micro-batch and number of
processes. The random state, the model's own forward and its mode are restored.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from donod_fast.data.types import TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import length_limit, quiet
from donod_fast.models.parameter_mask import MaskedTraining, read_mask, restoring_callback
from donod_fast.models.precision import silence_torchao
from donod_fast.training.recipe import TrainSettings
from donod_fast.training.samples import Collator, StepOrder, TrainingRows
from donod_fast.training.surroundings import model_put_back, no_warnings, random_state_kept, young_garbage_only

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

StepReport = Callable[[int, int, float], None]
"""Called after each optimizer step with the step, the number of steps, and the step's loss."""

_PROBE_TOKENS = 64


@dataclass(frozen=True)
class TrainStats:
    """What a training did.

    Attributes:
        steps: optimizer steps, those of an earlier run that was resumed counted.
        rows: rows trained on, each epoch's counted.
        tokens: their tokens, without padding.
        scored_tokens: their targets.
        epochs: passes over the rows.
        seconds: of this run's training, loading and saving left out.
        losses: (step, loss) of every step.
        resumed_steps: steps that an earlier run had done.
        processes: how many took part.
        trainable: parameters that were trained; under a parameter mask its entries.
    """

    steps: int
    rows: int
    tokens: int
    scored_tokens: int
    epochs: float
    seconds: float
    losses: tuple[tuple[int, float], ...]
    resumed_steps: int
    processes: int
    trainable: int

    @property
    def loss(self) -> float:
        """The last step's."""
        return self.losses[-1][1] if self.losses else math.nan


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints are written and which one to resume from.

    Attributes:
        folder: of the checkpoints.
        resume: a checkpoint to go on from, or None.
        step: that checkpoint's step.
        on_saved: called with the folder of each checkpoint once it is whole.
    """

    folder: Path
    resume: Path | None
    step: int
    on_saved: Callable[[Path], None]


def planned_steps(settings: TrainSettings, rows: int) -> int:
    """Optimizer steps of a training on so many rows."""
    per_epoch = -(-rows // settings.global_batch)
    return settings.max_steps or math.ceil(settings.epochs * per_epoch)


def train_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: TrainingRows | Sequence[TokenizedSample],
    settings: TrainSettings,
    *,
    progress: StepReport | None = None,
    checkpoints: Checkpoints | None = None,
    on_trained: Callable[[Any], None] | None = None,
) -> TrainStats:
    """Fine-tune a model in place; ``settings.model`` is not looked at.

    With LoRA the adapters are trained and merged into the model, unless ``settings.lora.merge`` is False: then they
    stay in it, as QLoRA's do always. Parameters require a gradient afterwards where they did before.

    Args:
        model: a causal language model; it is moved to the device of this process.
        tokenizer: the one that made ``samples``.
        samples: what to train on; those that are not ready are left out and counted in ``TrainingRows.skipped``.
        settings: how.
        progress: called after each step.
        checkpoints: where to write them and where to begin; None for neither.
        on_trained: called with TRL's trainer when it is done, before adapters are merged (to save from there).

    Raises:
        CorpusError: no sample is ready.
        InputError: the processes and batches do not go together, an optimizer is not known, or the parameter mask
            is not one of this model.
        ModelError: TRL's output layer does not give the model's own loss, or its samples cannot be packed as asked.
    """
    rows = samples if isinstance(samples, TrainingRows) else TrainingRows.of(samples)
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(no_warnings())
        stack.enter_context(random_state_kept())
        stack.enter_context(young_garbage_only())
        stack.enter_context(model_put_back(model, settings))
        masked = None
        if settings.parameter_mask is not None:
            masked = MaskedTraining(model, read_mask(settings.parameter_mask))
            stack.enter_context(masked.installed())
        folder = checkpoints.folder if checkpoints else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trainer = _trainer(model, tokenizer, rows, settings, folder, checkpoints, progress)
        if masked is not None:
            _refuse_spread_mask(trainer)
            trainer.add_callback(restoring_callback(masked))
        prove_loss(trainer, rows)
        if settings.packing != "none":
            limits = (settings.max_length, length_limit(trainer.model.config, tokenizer))
            trainer.data_collator = trainer.data_collator.packing(
                trainer.model,
                settings.packing,
                min((n for n in limits if n is not None), default=None),
                trainer.compute_loss_context_manager,
            )
        begin = time.perf_counter()
        _run(trainer, checkpoints)
        seconds = time.perf_counter() - begin
        steps = int(trainer.state.global_step)
        trained, tokens, scored = trainer.order.tokens(rows, steps)
        stats = TrainStats(
            steps=steps,
            rows=trained,
            tokens=tokens,
            scored_tokens=scored,
            epochs=steps / -(-len(rows) // settings.global_batch),
            seconds=seconds,
            losses=tuple((int(e["step"]), float(e["loss"])) for e in trainer.state.log_history if "loss" in e),
            resumed_steps=checkpoints.step if checkpoints else 0,
            processes=trainer.args.world_size,
            trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
            if masked is None
            else masked.entries,
        )
        if on_trained is not None:
            on_trained(trainer)
        if settings.method == "lora" and settings.lora.merge and not is_spread(trainer):
            trainer.model.merge_and_unload()
    return stats


def prove_loss(trainer: Any, rows: TrainingRows) -> None:
    """Verify on the beginning of one row that the loss to minimise is the model's own.

    TRL multiplies hidden states by the output layer itself; it would silently omit a transform of the logits that it
    does not know.

    Raises:
        ModelError: it is another.
    """
    ids = torch.from_numpy(rows.ids[: max(2, min(_PROBE_TOKENS, int(rows.lengths[0])))].astype(np.int64))[None]
    ids = ids.to(trainer.args.device)
    batch = {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
    model, training = trainer.model, trainer.model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            theirs = float(trainer.compute_loss(model, dict(batch)))
            logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits.float()
        own = float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))
    finally:
        model.train(training)
        trainer._metrics["eval"].clear()
    exact = next(model.parameters()).dtype == torch.float32 and not trainer.args.bf16
    if not math.isclose(theirs, own, rel_tol=1e-3 if exact else 5e-2, abs_tol=1e-3 if exact else 5e-2):
        raise ModelError(
            f"TRL's loss of this model is {theirs:.6g} where the model's own logits give {own:.6g}: it leaves out a "
            "transform of the logits; train such a model with another release of trl"
        )


def is_spread(trainer: Any) -> bool:
    """Whether each process holds only a part of the parameters (FSDP, DeepSpeed)."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def _refuse_spread_mask(trainer: Any) -> None:
    if is_spread(trainer):
        raise InputError(
            "a parameter mask needs whole parameters in each process, and FSDP and DeepSpeed spread them; "
            "train with data parallelism alone, or without --mask"
        )


def _run(trainer: Any, checkpoints: Checkpoints | None) -> None:
    resume = checkpoints.resume if checkpoints else None
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: TrainingRows,
    settings: TrainSettings,
    folder: Path,
    checkpoints: Checkpoints | None,
    progress: StepReport | None,
) -> Any:
    try:
        silence_torchao()
        import datasets
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback
        from trl import SFTTrainer
    except ImportError as error:
        raise InputError(f"training needs TRL ({error}): pip install 'donod-fast[train]'") from error

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """With our order of rows, and the mean over a step's tokens for every model."""

        order: StepOrder

        def _get_train_sampler(self, train_dataset: Any = None) -> StepOrder:
            return self.order

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if progress is not None and state.is_world_process_zero and "loss" in (logs or {}):
                progress(int(state.global_step), int(state.max_steps), float(logs["loss"]))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if checkpoints is not None and state.is_world_process_zero:
                checkpoints.on_saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    args = _arguments(settings, planned_steps(settings, len(rows)), folder, saves=checkpoints is not None)
    processes = args.world_size
    share = settings.micro_batch * processes
    if settings.global_batch % share:
        raise InputError(
            f"global_batch {settings.global_batch} is not a multiple of micro_batch {settings.micro_batch} × "
            f"{processes} processes; choose values that divide it"
        )
    args.gradient_accumulation_steps = settings.global_batch // share
    pad_id = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    order = StepOrder(rows, settings.seed, settings.global_batch, share if processes > 1 else 1)
    if checkpoints is not None:
        order.epoch = checkpoints.step // -(-len(rows) // settings.global_batch)
    trainer = Trainer(
        model=model,
        args=args,
        data_collator=Collator(rows, pad_id),  # until the model's packing is proved, which takes the trainer
        train_dataset=datasets.Dataset.from_dict({"row": list(range(len(order)))}),
        processing_class=tokenizer,
        callbacks=[Steps()],
        peft_config=None if settings.method == "full" else _lora(settings),
    )
    trainer.order = order
    trainer.model_accepts_loss_kwargs = True  # SFTTrainer's own loss divides by the tokens of the step for any model
    trainer.remove_callback(PrinterCallback)
    return trainer


def _lora(settings: TrainSettings) -> Any:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError(f"method {settings.method} needs peft: pip install 'donod-fast[train]'") from error
    lora = settings.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )


def _arguments(settings: TrainSettings, steps: int, folder: Path, *, saves: bool) -> Any:
    from transformers.training_args import OptimizerNames
    from trl import SFTConfig

    known = [name.value for name in OptimizerNames]
    if settings.optimizer not in known:
        raise InputError(f"train.optimizer {settings.optimizer!r} is not known; known are {', '.join(known)}")
    schedules = {"constant": "constant_with_warmup"}
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.micro_batch,
        learning_rate=settings.learning_rate,
        optim=settings.optimizer,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_epsilon,
        max_grad_norm=settings.max_grad_norm,
        # The first step of a warm-up has the rate 0, so a training of one step alone would change nothing.
        warmup_steps=math.ceil(steps * settings.warmup_ratio) if steps > 1 else 0,
        lr_scheduler_type=schedules.get(settings.schedule, settings.schedule),
        seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=settings.mixed_precision,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if saves and settings.save_steps else "no",
        save_steps=settings.save_steps or 500,
        save_total_limit=2,
        report_to=[],
        push_to_hub=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if args.n_gpu > 1:
        args._n_gpu = 1  # one process trains on one device; several take `accelerate launch`
    return args


__all__ = ["Checkpoints", "StepReport", "TrainStats", "is_spread", "planned_steps", "prove_loss", "train_model"]
