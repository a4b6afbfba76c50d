#!/usr/bin/env python3
"""Makes configs/tiny: preference rows, a tokenizer trained on them, and the shape of a model.

Python is needed only to remake them: `pip install tokenizers`, then `python scripts/make_tiny.py`.
Everything is seeded, so a second run writes the same files. The weights are not made here but by
`expo init` with seed 0; `tests/configs.rs` holds them equal to what it makes.

The rows are questions about everyday things. The chosen answer is true, whole and friendly; the
rejected one fails in one of three ways: it is wrong, it breaks off, or it is rude. Which of the two
is longer differs from row to row, so length alone does not tell them apart.
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parent.parent / "configs" / "tiny"
TRAIN, EVAL = 600, 100
VOCABULARY = 512
END = "<|endoftext|>"

COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "a carrot": "orange",
    "a ripe tomato": "red", "the clear sky": "blue", "chocolate": "brown", "an elephant": "grey",
    "a raven": "black", "milk": "white", "a cucumber": "green", "the sun": "yellow",
    "a strawberry": "red", "the sea": "blue", "an acorn": "brown",
}
SOUNDS = {
    "a dog": "barks", "a cat": "purrs", "a cow": "moos", "a duck": "quacks", "a lion": "roars",
    "a bee": "buzzes", "a horse": "neighs", "a wolf": "howls", "a mouse": "squeaks",
    "a snake": "hisses", "an owl": "hoots", "a sheep": "bleats",
}
PLACES = {
    "bread": "at the bakery", "a stamp": "at the post office", "a novel": "at the bookshop",
    "medicine": "at the pharmacy", "a hammer": "at the hardware shop", "fish": "at the market",
    "a train ticket": "at the station", "roses": "at the flower shop",
    "apples": "at the market", "a cake": "at the bakery", "an envelope": "at the post office",
    "a dictionary": "at the bookshop",
}
ASKING = [
    "{}", "Please tell me: {}", "I wonder: {}", "A quick question. {}", "My child asks: {}",
    "Hello! {}", "Can you help me? {}", "One more thing. {}",
]
OPENINGS = ["Gladly.", "Of course.", "Good question!", "Happy to help.", "With pleasure."]
CLOSINGS = ["", "", " I hope that helps.", " Have a nice day!", " Ask me anything else you like."]
RUDE = [
    "Who cares?", "Look it up yourself.", "That is a stupid question.", "Leave me alone.",
    "I have no time for this, find somebody else to bother with your questions.",
    "Are you really so lazy that you cannot find out by yourself? Go away.",
]


def facts():
    """Every fact: question, the true statement, and a false one drawn by the caller."""
    for thing, colour in COLOURS.items():
        yield f"What colour is {thing}?", f"{thing} is usually {{}}.", colour, COLOURS
    for animal, sound in SOUNDS.items():
        yield f"What does {animal} do?", f"{animal} {{}}.", sound, SOUNDS
    for goods, place in PLACES.items():
        yield f"Where do I buy {goods}?", f"You can buy {goods} {{}}.", place, PLACES


def capital(text):
    return text[0].upper() + text[1:]


def row(rng, fact, asking):
    question, statement, truth, table = fact
    opening, closing = rng.choice(OPENINGS), rng.choice(CLOSINGS)
    chosen = f"{opening} {capital(statement.format(truth))}{closing}"
    flaw = rng.choice(["wrong", "broken", "rude"])
    if flaw == "wrong":
        false = rng.choice(sorted(set(table.values()) - {truth}))
        rejected = f"{rng.choice(OPENINGS)} {capital(statement.format(false))}{rng.choice(CLOSINGS)}"
    elif flaw == "broken":
        words = capital(statement.format(truth)).split()
        rejected = f"{rng.choice(OPENINGS)} {' '.join(words[: rng.randint(1, len(words) - 1)])}"
    else:
        rejected = rng.choice(RUDE)
    prompt = f"Question: {asking.format(question)}\nAnswer:"
    return {"prompt": prompt, "chosen": " " + chosen, "rejected": " " + rejected}


def rows():
    """Each question in each wording twice, in two different answers; no row in both files."""
    rng = random.Random(0)
    made = [row(rng, fact, asking) for fact in facts() for asking in ASKING for _ in range(3)]
    rng.shuffle(made)
    unique = list({(r["prompt"], r["chosen"], r["rejected"]): r for r in made}.values())
    prompts = sorted({r["prompt"] for r in unique})
    held_out = set(rng.sample(prompts, 45))
    evaluation = [r for r in unique if r["prompt"] in held_out]
    training = [r for r in unique if r["prompt"] not in held_out]
    assert len(training) >= TRAIN and len(evaluation) >= EVAL, (len(training), len(evaluation))
    return training[:TRAIN], evaluation[:EVAL]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    training, evaluation = rows()
    (OUT / "model").mkdir(parents=True, exist_ok=True)
    for name, part in [("train", training), ("eval", evaluation)]:
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part)
        (OUT / f"{name}.jsonl").write_text(lines, encoding="utf-8")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for r in training for text in r.values()), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    tokenizer.save(str(OUT / "model" / "tokenizer.json"))
    write_json(
        OUT / "model" / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "model_max_length": 128},
    )
    write_json(
        OUT / "model" / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "hidden_act": "silu",
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "bos_token_id": None,
            "eos_token_id": 0,
            "torch_dtype": "float32",
        },
    )


if __name__ == "__main__":
    main()
