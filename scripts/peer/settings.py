"""What TRL is told, without TRL: so that it can be shown and tested where there is none."""


def of_trl(order: dict) -> dict:
    """The arguments of `DPOConfig` or, with what packs added, `SFTConfig`. `padding_free` is not among
    them: TRL 1.16 warns that DPO does not have it at present, and pads."""
    model = {"dtype": "float32"}
    if order["attention"]:
        model["attn_implementation"] = order["attention"]
    settings = {
        "output_dir": order["output_dir"],
        "use_cpu": order["device"] == "cpu",
        "bf16": order["dtype"] == "bf16",
        "gradient_checkpointing": order["recompute"],
        "max_steps": order["steps"],
        "per_device_train_batch_size": order["per_device"],
        "gradient_accumulation_steps": order["batch"] // order["per_device"],
        "max_length": order["max_length"],
        "learning_rate": order["learning_rate"],
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "model_init_kwargs": model,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if order["optim"]:
        settings["optim"] = order["optim"]
    if order["task"] == "sft":
        return settings | {"packing": True}
    return settings | {"beta": order["beta"], "precompute_ref_log_probs": order["cached"]}
