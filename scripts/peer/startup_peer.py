"""What startup.py measures of Python: rows tokenized, a model ready to be trained, a first token."""

import json
import sys
from pathlib import Path


def tokenize(order: dict) -> int:
    """The tokens of all rows, read by `datasets`."""
    from datasets import load_dataset
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(order["model"]) / "tokenizer.json"))
    data = load_dataset("json", data_files=order["data"], split="train")
    count = 0
    for start in range(0, len(data), 1000):
        for column in data[start : start + 1000].values():
            count += sum(len(one.ids) for one in tokenizer.encode_batch_fast(column))
    return count


def load(order: dict):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(order["threads"])
    return AutoModelForCausalLM.from_pretrained(order["model"], dtype=torch.float32)


def main() -> None:
    work, path = sys.argv[1:]
    order = json.loads(Path(path).read_text())
    if work == "rows":
        print(tokenize(order))
    if work == "step":
        model = load(order).train()
        print(tokenize(order), sum(parameter.numel() for parameter in model.parameters()))
    if work == "token":
        import torch
        from tokenizers import Tokenizer

        model = load(order).eval()
        tokenizer = Tokenizer.from_file(str(Path(order["model"]) / "tokenizer.json"))
        ids = torch.tensor([tokenizer.encode(order["prompt"]).ids])
        with torch.inference_mode():
            drawn = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False)
        print(tokenizer.decode(drawn[0].tolist()))


main()
