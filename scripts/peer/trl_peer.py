"""TRL's DPO or packed SFT on the given order."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import TrainerCallback

from measure import Steps, order, tokenizer


class Clock(TrainerCallback):
    """Times whole optimizer steps; fetching a batch falls between them."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def on_step_begin(self, *_, **__):
        self.steps.begin()

    def on_step_end(self, *_, **__):
        self.steps.end()

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.steps.losses.append(float(logs["loss"]))


def counted(batch: dict) -> tuple[int, int]:
    """The tokens of a batch with each prompt once, and its positions."""
    ids = batch["input_ids"]
    if "completion_mask" not in batch:
        return ids.numel(), ids.numel()
    with_prompts_twice = int(batch["attention_mask"].sum())
    return (with_prompts_twice + int(batch["completion_mask"].sum())) // 2, ids.numel()


def main():
    work = order()
    torch.set_num_threads(work.threads)
    common = dict(
        output_dir=work.output_dir,
        use_cpu=True,
        bf16=work.dtype == "bf16",
        gradient_checkpointing=work.recompute,
        max_steps=work.steps,
        per_device_train_batch_size=work.batch,
        max_length=work.max_length,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        model_init_kwargs={"dtype": "float32"},
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    steps = Steps()
    if work.task == "dpo":
        config = trl.DPOConfig(**common, beta=work.beta, precompute_ref_log_probs=work.cached)
        kind = trl.DPOTrainer
    else:
        config, kind = trl.SFTConfig(**common, packing=True), trl.SFTTrainer
    trainer = kind(
        model=work.model,
        args=config,
        train_dataset=Dataset.from_list(work.rows),
        processing_class=tokenizer(work),
        callbacks=[Clock(steps)],
    )
    collate = trainer.data_collator

    def count_and_collate(examples):
        batch = collate(examples)
        steps.count(*counted(batch))
        return batch

    trainer.data_collator = count_and_collate
    trainer.train()
    # The loader reads ahead.
    done = len(steps.seconds)
    steps.tokens, steps.positions = steps.tokens[:done], steps.positions[:done]
    steps.print(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)


main()
