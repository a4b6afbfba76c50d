//! Makes what the quickstart is made of, from the grammar of its stories: a corpus, prompts, a
//! tokenizer, labelled pairs. `scripts/make_quickstart.sh` runs the whole chain.
//!
//! Everything is drawn from a seed, so a second run writes the same files.

#![allow(clippy::print_stderr)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser};
use expo::error::{Error, Result};
use expo::lab::story::{Grammar, Prompt, Story, Tilt, rng, uniform};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

const BEGIN: &str = "<|begin|>";
const END: &str = "<|end|>";

/// Streams of the seed: what one command draws tells nothing of what another does.
const CORPUS: u64 = 0;
const PROMPTS: u64 = 1;
const LABELS: u64 = 2;

/// Makes the files of the quickstart from the grammar of its stories.
#[derive(Parser)]
enum Command {
    /// Different prompts, in two files that share none.
    Prompts(PromptsArgs),
    /// Stories for supervised fine-tuning: prompt, completion.
    Corpus(CorpusArgs),
    /// A byte-level BPE tokenizer trained on a corpus.
    Tokenizer(TokenizerArgs),
    /// Preferences between samples: prompt, chosen, rejected.
    Pairs(PairsArgs),
}

#[derive(Args)]
struct Source {
    /// The grammar.
    #[arg(long, default_value = "configs/quickstart/grammar.toml")]
    grammar: PathBuf,
    /// The seed of what is drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct PromptsArgs {
    #[command(flatten)]
    source: Source,
    /// Prompts for training.
    #[arg(long)]
    train: usize,
    /// Prompts for evaluation.
    #[arg(long)]
    held_out: usize,
    /// The file of the prompts for training.
    #[arg(long)]
    out: PathBuf,
    /// The file of the prompts for evaluation.
    #[arg(long)]
    held_out_out: PathBuf,
}

#[derive(Args)]
struct CorpusArgs {
    #[command(flatten)]
    source: Source,
    /// The number of stories.
    #[arg(long)]
    rows: usize,
    /// Files whose prompts are left out.
    #[arg(long)]
    without: Vec<PathBuf>,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct TokenizerArgs {
    /// The corpus.
    #[arg(long)]
    corpus: PathBuf,
    /// The number of tokens.
    #[arg(long, default_value_t = 640)]
    vocab: usize,
    /// Write tokenizer.json and tokenizer_config.json to this directory.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct PairsArgs {
    #[command(flatten)]
    source: Source,
    /// Samples as `expo sample` writes them.
    #[arg(long)]
    samples: PathBuf,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct PromptRow {
    prompt: String,
}

#[derive(Serialize, Deserialize)]
struct CorpusRow {
    prompt: String,
    completion: String,
}

#[derive(Deserialize)]
struct SampleRow {
    prompt: String,
    response: String,
    finish_reason: String,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Prompts(args) => prompts(&args),
        Command::Corpus(args) => corpus(&args),
        Command::Tokenizer(args) => tokenizer(&args),
        Command::Pairs(args) => pairs(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn prompts(args: &PromptsArgs) -> Result<()> {
    let grammar = Grammar::open(&args.source.grammar)?;
    let mut rng = rng(args.source.seed, PROMPTS);
    let (wanted, mut seen, mut rows) = (args.train + args.held_out, HashSet::new(), Vec::new());
    let mut repeats = 0;
    while rows.len() < wanted {
        let prompt = grammar.draw_prompt(&mut rng);
        match seen.insert(prompt.clone()) {
            true => rows.push(PromptRow { prompt }),
            false => repeats += 1,
        }
        if repeats >= 100 * wanted {
            let found = rows.len();
            let what = format!("the grammar has hardly more than {found} prompts, not {wanted}");
            return Err(Error::input(what).at(args.source.grammar.display()));
        }
    }
    let (train, held_out) = rows.split_at(args.train);
    write_rows(&args.out, train)?;
    write_rows(&args.held_out_out, held_out)
}

fn corpus(args: &CorpusArgs) -> Result<()> {
    let grammar = Grammar::open(&args.source.grammar)?;
    let mut without = HashSet::new();
    for path in &args.without {
        let rows: Vec<PromptRow> = read_rows(path)?;
        without.extend(rows.into_iter().map(|row| row.prompt));
    }
    let mut rng = rng(args.source.seed, CORPUS);
    let (mut rows, mut left_out) = (Vec::new(), 0);
    while rows.len() < args.rows {
        let prompt = grammar.draw_prompt(&mut rng);
        if without.contains(&prompt) {
            left_out += 1;
            if left_out >= 100 * args.rows {
                return Err(Error::input(
                    "--without leaves hardly a prompt of the grammar",
                ));
            }
            continue;
        }
        let truth = scene(&grammar, &prompt)?;
        let completion = truth.tilted(Tilt::GRAMMAR).draw(&mut rng).text;
        rows.push(CorpusRow { prompt, completion });
    }
    write_rows(&args.out, &rows)
}

fn tokenizer(args: &TokenizerArgs) -> Result<()> {
    let rows: Vec<CorpusRow> = read_rows(&args.corpus)?;
    let texts: Vec<String> = rows
        .into_iter()
        .map(|row| row.prompt + &row.completion)
        .collect();
    let train = || {
        train(&texts, args.vocab)
            .map_err(|error| Error::input(error.to_string()).at(args.corpus.display()))
    };
    let definition = train()?;
    // Ties between merges must not fall as the hash maps of one run happen to.
    if definition != train()? {
        return Err(Error::failed("two trainings gave two tokenizers"));
    }
    fs::create_dir_all(&args.out).map_err(|error| Error::io(&args.out, &error))?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
    });
    write(&args.out.join("tokenizer.json"), definition + "\n")?;
    write(
        &args.out.join("tokenizer_config.json"),
        format!("{config:#}\n"),
    )
}

/// The definition of a BPE over bytes with a begin token in front of every text.
fn train(texts: &[String], vocab: usize) -> tokenizers::Result<String> {
    let special = [BEGIN, END].map(|token| AddedToken::from(token, true));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocab)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(bytes))
        .with_decoder(Some(bytes))
        .train(&mut trainer, texts.iter())?;
    let found = tokenizer.get_vocab_size(true);
    if found != vocab {
        return Err(format!("the corpus gives {found} tokens, not {vocab}").into());
    }
    let id = tokenizer.token_to_id(BEGIN).unwrap_or_default();
    let begin = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))?
        .special_tokens(vec![(BEGIN, id)])
        .build()?;
    tokenizer.with_post_processor(Some(begin));
    tokenizer.to_string(true)
}

fn pairs(args: &PairsArgs) -> Result<()> {
    let grammar = Grammar::open(&args.source.grammar)?;
    let samples: Vec<SampleRow> = read_rows(&args.samples)?;
    let mut rng = rng(args.source.seed, LABELS);
    let (mut rows, mut strange, mut equal, mut alone) = (Vec::new(), 0, 0, 0);
    for of_prompt in by_prompt(&samples) {
        let prompt = of_prompt[0].prompt.as_str();
        let scene = scene(&grammar, prompt)?;
        let stories: Vec<Story> = of_prompt
            .iter()
            .filter(|row| row.finish_reason == "stop")
            .filter_map(|row| scene.read(&row.response))
            .collect();
        strange += of_prompt.len() - stories.len();
        let pairs = stories.chunks_exact(2);
        alone += pairs.remainder().len();
        for pair in pairs {
            let (one, two) = (&pair[0], &pair[1]);
            if one.text == two.text {
                equal += 1;
                continue;
            }
            let one_wins = 1.0 / (1.0 + (two.score - one.score).exp());
            let (chosen, rejected) = match uniform(&mut rng) < one_wins {
                true => (one, two),
                false => (two, one),
            };
            rows.push(json!({
                "prompt": prompt,
                "chosen": chosen.text,
                "rejected": rejected.text,
            }));
        }
    }
    eprintln!(
        "{} samples: {} pairs; {equal} pairs of equal texts, {strange} samples that are not stories \
         and {alone} without a partner dropped",
        samples.len(),
        rows.len()
    );
    write_rows(&args.out, &rows)
}

/// The samples of each prompt, prompts and samples in the order of the file.
fn by_prompt(samples: &[SampleRow]) -> Vec<Vec<&SampleRow>> {
    let mut order = Vec::new();
    let mut groups = HashMap::new();
    for sample in samples {
        let group: &mut Vec<&SampleRow> = groups.entry(sample.prompt.as_str()).or_default();
        if group.is_empty() {
            order.push(sample.prompt.as_str());
        }
        group.push(sample);
    }
    order
        .into_iter()
        .filter_map(|prompt| groups.remove(prompt))
        .collect()
}

fn scene<'a>(grammar: &'a Grammar, prompt: &str) -> Result<Prompt<'a>> {
    grammar.prompt(prompt).ok_or_else(|| {
        Error::input(format!("no prompt of the grammar: {prompt:?}"))
            .hint("draw prompts from the same grammar")
    })
}

fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    let row = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let place = format!("{}:{}", path.display(), index + 1);
            Error::input(format!("not such a row: {error}")).at(place)
        })
    };
    text.lines().enumerate().map(row).collect()
}

/// One JSON object per line, gzipped if the path says so.
fn write_rows<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        let row = serde_json::to_string(row).map_err(|error| Error::failed(error.to_string()))?;
        text.push_str(&row);
        text.push('\n');
    }
    if path.extension().is_none_or(|extension| extension != "gz") {
        return write(path, text);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let bytes = gzip.write_all(text.as_bytes()).and_then(|()| gzip.finish());
    write(path, bytes.map_err(|error| Error::io(path, &error))?)
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
    }
    fs::write(path, text).map_err(|error| Error::io(path, &error))
}
