"""TRL's DPO or packed SFT on the given order."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import TrainerCallback

from measure import Steps, order, tokenizer
from settings import of_trl


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
    steps = Steps(work.device)
    settings = of_trl(vars(work))
    if work.task == "dpo":
        config, kind = trl.DPOConfig(**settings), trl.DPOTrainer
    else:
        config, kind = trl.SFTConfig(**settings), trl.SFTTrainer
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
    steps.sum_counts(config.gradient_accumulation_steps)
    steps.print(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)


main()
