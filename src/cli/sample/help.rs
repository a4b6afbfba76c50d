//! The long help of `expo sample`.

pub(super) const HELP: &str = "\
Writes a line per response, those to a prompt one after the other:
  {\"prompt\":\"...\",\"response\":\"...\",\"token_ids\":[...],\"log_prob\":-43.69,
   \"finish_reason\":\"stop\",\"index\":0,\"seed\":0,\"draw\":\"...\"}
log_prob is the model's own, in nats, whatever the settings. finish_reason is
stop (the last id is an end token), length (a limit), or stop_text (a text of
--stop; the response ends before it, token_ids has all that was drawn). With
--reference, a line also has reference_log_prob. A prompt that several rows
share is answered once.

A draw depends on the seed, the prompt, the number of the response and the token
position alone. So the same command resumes an interrupted file, and
--batch-size affects speed and memory only (on a GPU also rounding). A file of
another model, other prompts or other settings is refused. What was being drawn
at INT or TERM is drawn again.

Such a file is what data.samples names in a training config. With
data.samples = \"auto\" the run draws its samples itself, by its [sample] section.

A config:
  [model]
  model_name_or_path = \"runs/sft\"
  [data]
  format = \"hh\"
  train = \"train.jsonl.gz\"         # also eval and unlabelled, if present
  max_prompt_length = 256          # longer prompts are cut, as in training
  [sample]
  temperature = 1.0
  top_k = 60                       # 0: off
  top_p = 0.8                      # 1: off
  min_p = 0.0                      # 0: off
  repetition_penalty = 1.1         # 1: off
  stop = []                        # e.g. [\"\\n\\nHuman:\"]
  max_new_tokens = 256
  num_samples = 1
  seed = 0
  batch_size = 32
  greedy = false

Logits processors are those of transformers, in its order: repetition penalty,
temperature, top-k, top-p, min-p.

--alpaca-eval writes [{\"instruction\":\"...\",\"output\":\"...\",\"generator\":\"NAME\"}].
The rows of --prompts may be AlpacaEval's own, with a column instruction.

On standard output, control characters of a response are written as \\u001b; a
file has them exactly.

Examples:
  $ expo sample --config configs/sample_hh.toml --out samples.jsonl
  $ expo sample --model Qwen/Qwen2-0.5B-Instruct --chat --prompt \"Why?\"
  $ expo sample --model runs/sft --prompts test.jsonl --num-samples 25 \\
      --top-p 0.95 --out s.jsonl
  $ expo sample --model runs/sft --prompt \"Once upon a time\" --greedy
  $ expo sample --model runs/dpo --prompts alpaca_eval.json --chat \\
      --out dpo.jsonl --alpaca-eval outputs.json --generator dpo";
