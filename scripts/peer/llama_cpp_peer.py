"""llama.cpp on an order written by generate.py: many sequences at once, through its C interface."""

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as api
from measure import peak_memory
from rows import END

# Tokens that a call may have: its own default.
CALL = 2048
KEY_VALUES = {"f32": 0, "f16": 1}


class Model:
    """A model with room for `sequences` of `length` tokens each."""

    def __init__(self, order: dict, sequences: int, length: int):
        # Its own lines on standard error say nothing that is asked.
        self.quiet = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self.quiet, ctypes.c_void_p(0))
        api.llama_backend_init()
        place = order["gguf"].encode()
        self.model = api.llama_model_load_from_file(place, api.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {order['gguf']}")
        settings = api.llama_context_default_params()
        # Sequences have room by blocks of 256 tokens.
        settings.n_ctx = sequences * (-(-length // 256) * 256)
        settings.n_batch = CALL
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = order["threads"]
        # Each sequence by itself is the faster way where none shares anything.
        settings.kv_unified = False
        settings.type_k = settings.type_v = KEY_VALUES[order["key_values"]]
        self.context = api.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit("llama.cpp has no memory for its context")
        vocabulary = api.llama_model_get_vocab(self.model)
        self.vocabulary = api.llama_vocab_n_tokens(vocabulary)
        self.batch = api.llama_batch_init(max(CALL, sequences), 0, 1)

    def clear(self):
        api.llama_memory_clear(api.llama_get_memory(self.context), True)

    def decode(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Computes tokens: id, position, sequence, and whether its logits are wanted."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for at, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = wanted
        code = api.llama_decode(self.context, batch)
        if code != 0:
            raise SystemExit(f"llama_decode gave {code}")

    def sampler(self, settings: dict | None, window: int):
        """The papers' settings in llama.cpp's own order, or the most likely token."""
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        if settings is None:
            links = [api.llama_sampler_init_greedy()]
        else:
            links = [
                api.llama_sampler_init_penalties(
                    self.vocabulary, window, settings["repetition_penalty"], 0.0, 0.0
                ),
                api.llama_sampler_init_top_k(settings["top_k"]),
                api.llama_sampler_init_top_p(settings["top_p"], 1),
                api.llama_sampler_init_temp(settings["temperature"]),
                api.llama_sampler_init_dist(0),
            ]
        for link in links:
            api.llama_sampler_chain_add(chain, link)
        return chain


def generate(model: Model, prompts: list[list[int]], order: dict, new: int) -> list[list[int]]:
    """The ids drawn after prompts that are computed together, so many each."""
    window = max(map(len, prompts)) + new
    samplers = [model.sampler(order["settings"], window) for _ in prompts]
    model.clear()
    drawn = [[] for _ in prompts]

    def draw(sequences: list[tuple[int, int]]) -> None:
        for sequence, at in sequences:
            drawn[sequence].append(api.llama_sampler_sample(samplers[sequence], model.context, at))

    call, ended = [], []
    for sequence, prompt in enumerate(prompts):
        for token in prompt:
            api.llama_sampler_accept(samplers[sequence], token)
        if len(call) + len(prompt) > CALL:
            model.decode(call)
            draw(ended)
            call, ended = [], []
        last = len(prompt) - 1
        call += [(token, at, sequence, at == last) for at, token in enumerate(prompt)]
        ended.append((sequence, len(call) - 1))
    model.decode(call)
    draw(ended)
    for step in range(1, new):
        at = [len(prompt) + step - 1 for prompt in prompts]
        model.decode([(ids[-1], at[each], each, True) for each, ids in enumerate(drawn)])
        draw([(each, each) for each in range(len(prompts))])
    for sampler in samplers:
        api.llama_sampler_free(sampler)
    return drawn


def read_prompts(order: dict) -> list[list[int]]:
    """The prompts as ids of the made-up words, each of which is a token."""
    vocabulary = json.loads((Path(order["model"]) / "tokenizer.json").read_text())["model"]["vocab"]
    lines = Path(order["data"]).read_text().splitlines()
    return [[vocabulary[word] for word in json.loads(line)["prompt"].split()] for line in lines]


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    assert order.get("end", END) == END, "the tokenizer is that of the made-up words"
    prompts = read_prompts(order)
    size, new = order["batch"], order["max_new_tokens"]
    model = Model(order, min(size, len(prompts)), max(map(len, prompts)) + new)
    generate(model, prompts[:1], order, 4)
    start, cpu, drawn = time.perf_counter(), time.process_time(), []
    for first in range(0, len(prompts), size):
        drawn += generate(model, prompts[first : first + size], order, new)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    measured = {"tokens": sum(map(len, drawn)), "seconds": seconds, "cpu_seconds": cpu}
    measured |= {"versions": {"llama-cpp-python": api.__version__}, "peak_memory_bytes": peak_memory()}
    print(json.dumps(measured | ({"ids": drawn} if order["settings"] is None else {})))


if __name__ == "__main__":
    main()
