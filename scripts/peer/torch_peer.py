"""DPO by hand in PyTorch, as fast as we could write it: chosen and rejected in one padded batch, the
head on answer tokens alone, the reference's log-probs computed before, a fused AdamW.

Sequences are padded on the right under a causal mask, so no token attends to padding and none needs
a mask of its own."""

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM

from measure import Steps, order, tokenizer


class Batch:
    """Pairs as ids (2 * pairs, length), chosen first, and where each predicts an answer token."""

    def __init__(self, rows: list[dict], tokenize, end: str, max_length: int, device: str):
        prompts = [tokenize(row["prompt"]) for row in rows]
        answers = [row[side] for side in ("chosen", "rejected") for row in rows]
        texts = [row["prompt"] for row in rows] * 2
        whole = [tokenize(text + answer + end)[:max_length] for text, answer in zip(texts, answers)]
        self.ids = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.long)
        self.predicts = torch.zeros_like(self.ids, dtype=torch.bool)
        for at, ids in enumerate(whole):
            prompt = len(prompts[at % len(rows)])
            self.ids[at, : len(ids)] = torch.tensor(ids)
            self.predicts[at, prompt - 1 : len(ids) - 1] = True
        self.ids, self.predicts = self.ids.to(device), self.predicts.to(device)
        self.labels = self.ids.roll(-1, dims=1)[self.predicts]
        self.owners = self.predicts.nonzero()[:, 0]
        self.tokens = sum(map(len, whole)) - sum(map(len, prompts))


def log_probs(model, batch: Batch) -> torch.Tensor:
    """The summed log-probs of the answers, (2 * pairs)."""
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden[batch.predicts])
    each = -F.cross_entropy(logits.float(), batch.labels, reduction="none")
    return each.new_zeros(len(batch.ids)).index_add(0, batch.owners, each)


def main():
    work = order()
    torch.set_num_threads(work.threads)
    encode = tokenizer(work)
    attention = {"attn_implementation": work.attention} if work.attention else {}
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32, **attention)
    model.to(work.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True
    )
    mixed = torch.autocast(work.device, torch.bfloat16, enabled=work.dtype == "bf16")
    size = work.per_device
    parts = [
        Batch(part, lambda text: encode(text)["input_ids"], work.end, work.max_length, work.device)
        for part in (work.rows[at : at + size] for at in range(0, len(work.rows), size))
    ]
    with torch.no_grad(), mixed:
        references = [log_probs(model, part) for part in parts]
    scored = list(zip(parts, references))
    steps = Steps(work.device)
    each = work.batch // size
    for at in range(0, each * work.steps, each):
        steps.begin()
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for part, reference in scored[at : at + each]:
            with mixed:
                ratios = log_probs(model, part) - reference
            chosen, rejected = ratios.view(2, -1)
            loss = -F.logsigmoid(work.beta * (chosen - rejected)).sum() / work.batch
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps.losses.append(torch.stack(losses).sum().item())
        steps.end()
        for part in parts[at : at + each]:
            steps.count(part.tokens, part.ids.numel())
    steps.sum_counts(each)
    steps.print(transformers=transformers.__version__, torch=torch.__version__)


main()
