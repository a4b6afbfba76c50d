//! Every parser of files that others made, as a function of a file's bytes.
//!
//! The fuzz targets beside this file and `tests/hostile.rs` run the same functions, on the same seeds:
//! `corpus/{parser}` has small instances of each format. One whose name begins with `bad` must be
//! refused, any other accepted.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{fs, panic};

use candle_core::{DType, Device};
use expo::config::{Config, SamplingConfig, SweepConfig};
use expo::data::chat::{ChatTemplate, Message};
use expo::data::format::{Columns, FORMATS, Format};
use expo::data::pack::Packed;
use expo::data::{Dataset, Example, Files, Response, RowConfig, Samples, Tokenizer, prompts};
use expo::error::{Error, Result};
use expo::eval::alpaca::{Annotations, difficulties, gamed};
use expo::eval::diversity::{Diversity, SampleSet, Unit, align};
use expo::eval::figure::Draws;
use expo::eval::judge::{Cache, Lexicon, Template};
use expo::lab::bandit::Experiment;
use expo::lab::story::Grammar;
use expo::loss::{Loss, Objective, Role};
use expo::model::peft::PeftFolder;
use expo::model::weights::ModelFolder;
use expo::report::page::{Recorded, page};
use expo::score::ScoreFile;

/// A parser of one file in a folder.
pub struct Parser {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// The file that it reads; other files may be named in an error beside it.
    pub file: &'static str,
    /// What else lies in the folder.
    around: &'static [(&'static str, &'static [u8])],
    read: fn(&Path) -> Result<()>,
}

const CONFIG: (&str, &[u8]) = ("config.json", include_bytes!("corpus/config_json/llama"));
const RUN: (&str, &[u8]) = ("run.json", br#"{"loss": "dpo"}"#);
const GENERATION: (&str, &[u8]) = (
    "generation_config.json",
    include_bytes!("corpus/generation_config/ends"),
);
const WEIGHTS: (&str, &[u8]) = (
    "model.safetensors",
    include_bytes!("corpus/safetensors_header/llama"),
);
const SHARDS: [(&str, &[u8]); 2] = [
    (
        "model-1.safetensors",
        include_bytes!("shards/model-1.safetensors"),
    ),
    (
        "model-2.safetensors",
        include_bytes!("shards/model-2.safetensors"),
    ),
];
const TOKENIZER: (&str, &[u8]) = (
    "tokenizer.json",
    include_bytes!("corpus/tokenizer_json/bpe"),
);
const TEMPLATE: (&str, &[u8]) = (
    "chat_template.jinja",
    include_bytes!("corpus/chat_template/turns"),
);
const TOKENIZER_CONFIG: (&str, &[u8]) = (
    "tokenizer_config.json",
    include_bytes!("corpus/tokenizer_config/template"),
);
const ADAPTER_CONFIG: (&str, &[u8]) = (
    "adapter_config.json",
    include_bytes!("corpus/adapter_config/llama"),
);
const ADAPTER_WEIGHTS: (&str, &[u8]) = (
    "adapter_model.safetensors",
    include_bytes!("corpus/adapter_weights/llama"),
);
const PAIRS: (&str, &[u8]) = ("pairs.jsonl", include_bytes!("corpus/rows/pairs"));

/// All of them.
pub static PARSERS: [Parser; 27] = [
    Parser {
        name: "adapter_config",
        file: "adapter_config.json",
        around: &[CONFIG, WEIGHTS, ADAPTER_WEIGHTS],
        read: adapter,
    },
    Parser {
        name: "adapter_weights",
        file: "adapter_model.safetensors",
        around: &[CONFIG, WEIGHTS, ADAPTER_CONFIG],
        read: adapter,
    },
    Parser {
        name: "config_json",
        file: "config.json",
        around: &[WEIGHTS],
        read: model,
    },
    Parser {
        name: "generation_config",
        file: "generation_config.json",
        around: &[TOKENIZER, TEMPLATE],
        read: tokenizer,
    },
    Parser {
        name: "weight_index",
        file: "model.safetensors.index.json",
        around: &[CONFIG, SHARDS[0], SHARDS[1]],
        read: model,
    },
    Parser {
        name: "safetensors_header",
        file: "model.safetensors",
        around: &[CONFIG],
        read: model,
    },
    Parser {
        name: "tokenizer_json",
        file: "tokenizer.json",
        around: &[GENERATION, TEMPLATE],
        read: tokenizer,
    },
    Parser {
        name: "tokenizer_config",
        file: "tokenizer_config.json",
        around: &[TOKENIZER],
        read: tokenizer,
    },
    Parser {
        name: "special_tokens_map",
        file: "special_tokens_map.json",
        around: &[TOKENIZER, TOKENIZER_CONFIG],
        read: tokenizer,
    },
    Parser {
        name: "chat_template",
        file: "chat_template.jinja",
        around: &[TOKENIZER, GENERATION],
        read: tokenizer,
    },
    Parser {
        name: "rows",
        file: "rows.jsonl",
        around: &[TOKENIZER, TOKENIZER_CONFIG],
        read: rows,
    },
    Parser {
        name: "rows_text",
        file: "rows.txt",
        around: &[TOKENIZER, TOKENIZER_CONFIG],
        read: text_rows,
    },
    Parser {
        name: "config_toml",
        file: "run.toml",
        around: &[],
        read: |folder| Config::open(&folder.join("run.toml"), &[]).map(drop),
    },
    Parser {
        name: "sampling_toml",
        file: "sampling.toml",
        around: &[],
        read: |folder| SamplingConfig::open(&folder.join("sampling.toml"), &[]).map(drop),
    },
    Parser {
        name: "sweep_toml",
        file: "sweep.toml",
        around: &[],
        read: |folder| {
            let path = folder.join("sweep.toml");
            SweepConfig::open(&path, &[])?;
            Ok(())
        },
    },
    Parser {
        name: "bandit_toml",
        file: "bandit.toml",
        around: &[],
        read: |folder| Experiment::open(&folder.join("bandit.toml"), &[]).map(drop),
    },
    Parser {
        name: "score_file",
        file: "scores.jsonl",
        around: &[TOKENIZER, TOKENIZER_CONFIG, PAIRS],
        read: scores,
    },
    Parser {
        name: "sample_file",
        file: "samples.jsonl",
        around: &[TOKENIZER, TOKENIZER_CONFIG],
        read: samples,
    },
    Parser {
        name: "sample_set",
        file: "samples.jsonl",
        around: &[],
        read: sample_set,
    },
    Parser {
        name: "run_log",
        file: "metrics.jsonl",
        around: &[RUN],
        read: report,
    },
    Parser {
        name: "run_margins",
        file: "margins.json",
        around: &[RUN],
        read: report,
    },
    Parser {
        name: "story_file",
        file: "grammar.toml",
        around: &[],
        read: story,
    },
    Parser {
        name: "judge_template",
        file: "template.txt",
        around: &[],
        read: |folder| {
            let template = Template::open(&folder.join("template.txt"))?;
            template.grammar().parse(&template.render("p", "a", "b"));
            Ok(())
        },
    },
    Parser {
        name: "judge_cache",
        file: "replies.jsonl",
        around: &[],
        read: |folder| Cache::look(&folder.join("replies.jsonl")).map(drop),
    },
    Parser {
        name: "lexicon",
        file: "words.txt",
        around: &[],
        read: |folder| Lexicon::open(&folder.join("words.txt")).map(drop),
    },
    Parser {
        name: "annotations",
        file: "annotations.json",
        around: &[],
        read: |folder| Annotations::open(&folder.join("annotations.json")).map(drop),
    },
    Parser {
        name: "gamed_csv",
        file: "gamed.csv",
        around: &[],
        read: |folder| {
            let path = folder.join("gamed.csv");
            difficulties(&path)?;
            gamed(&path).map(drop)
        },
    },
];

impl Parser {
    /// Writes what the parser finds beside its file.
    pub fn prepare(&self, folder: &Path) {
        for (name, bytes) in self.around {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    /// Reads these bytes as the parser's file in a folder that was [prepared](Self::prepare).
    ///
    /// # Panics
    /// If an error does not name the file.
    pub fn run(&self, folder: &Path, bytes: &[u8]) -> Result<()> {
        fs::write(folder.join(self.file), bytes).unwrap();
        let done = (self.read)(folder);
        if let Err(error) = &done {
            let message = error.to_string();
            let place = folder.display().to_string();
            assert!(
                message.contains(self.file) && message.contains(&place),
                "an error without its file: {message}"
            );
            assert!(!message.contains('\n'), "more than one line: {message}");
        }
        done
    }

    /// Its seeds: name and bytes, by name.
    pub fn seeds(&self) -> Vec<(String, Vec<u8>)> {
        let folder = repository().join("fuzz/corpus").join(self.name);
        let entries = fs::read_dir(&folder).unwrap();
        let mut seeds: Vec<(String, Vec<u8>)> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read(path).unwrap())
            })
            .collect();
        seeds.sort();
        seeds
    }
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    // A test binary may run elsewhere than it was built.
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    root.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A folder in memory, where the system has one.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// Nothing is said of a panic that becomes an error, nor by the hook that was there before.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let speak = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !expo::io::untrusted::is_guarded() {
                speak(panic);
            }
        }));
    });
}

/// Opens the model, loads it and scores a response with it.
fn model(folder: &Path) -> Result<()> {
    let (model, _) = ModelFolder::open(folder)?.load(DType::F32, &Device::Cpu)?;
    let example = Example {
        row: 0,
        prompt: vec![1, 2],
        responses: vec![Response::new(Role::Chosen, vec![3, 4])],
        preference: None,
    };
    model.score(&Packed::new([&example], Role::ALL)).map(drop)
}

/// Opens the adapter on the model beside it, and loads it.
fn adapter(folder: &Path) -> Result<()> {
    let base = ModelFolder::open(folder)?;
    let peft = PeftFolder::open(folder)?;
    let adapter = peft.adapter(&base.arch, base.layout())?;
    let (mut model, _) = base.with_adapter(&adapter).load(DType::F32, &Device::Cpu)?;
    peft.load_into(model.weights_mut()).map(drop)
}

fn tokenizer(folder: &Path) -> Result<()> {
    let tokenizer = Tokenizer::open(folder)?;
    let ids = tokenizer.encode("Hello, ab\u{fc} b\u{1f600}\n")?;
    tokenizer.decode(&ids, true)?;
    tokenizer.offsets("ab ba")?;
    tokenizer.pieces(&ids)?;
    let text = render(&ChatTemplate::open(folder)?)?;
    tokenizer.encode(&text).map(drop)
}

fn render(template: &ChatTemplate) -> Result<String> {
    let messages = [
        ("system", "Be kind."),
        ("user", "Hi\n"),
        ("assistant", "Hello"),
    ];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    template.render(&messages[..2], true)?;
    template.render(&messages, false)
}

fn rows(folder: &Path) -> Result<()> {
    let path = folder.join("rows.jsonl");
    for record in expo::data::read::rows(&path)? {
        let row = record?.row?;
        let mut read = FORMATS.iter().map(|format| {
            let common = format.common(&row, &Columns::default())?;
            format.example(&common)
        });
        // No format reads every row; each must say why.
        let wrong = read.find_map(|read| {
            let error = read.err()?.into_error();
            (!error.to_string().contains("rows.jsonl")).then_some(error)
        });
        assert!(wrong.is_none(), "{wrong:?}");
    }
    dataset(folder, path)
}

fn text_rows(folder: &Path) -> Result<()> {
    dataset(folder, folder.join("rows.txt"))
}

fn dataset(folder: &Path, path: PathBuf) -> Result<()> {
    let files = Files::from(path);
    let format = Format::of_file(&files)?;
    let config = RowConfig::new(format);
    let tokenizer = Tokenizer::open(folder)?;
    let loss = match format.name {
        "prompts" => return prompts(&files, &config.prompts(), &tokenizer).map(drop),
        "unpaired" => "kto",
        "sft" => "sft",
        _ => "dpo",
    };
    let needs = Loss::default_of(loss)?.needs();
    Dataset::open(&files, &config, &tokenizer, &needs, None).map(drop)
}

fn scores(folder: &Path) -> Result<()> {
    let path = folder.join("scores.jsonl");
    let scores = ScoreFile::open(&path)?;
    let config = RowConfig::new(Format::named("pairs").map_err(Error::input)?);
    let files = folder.join("pairs.jsonl").into();
    let needs = Loss::default_of("dpo")?.needs();
    let tokenizer = Tokenizer::open(folder)?;
    let dataset = Dataset::open(&files, &config, &tokenizer, &needs, None)?;
    scores.column(&dataset, false).map(drop)
}

fn samples(folder: &Path) -> Result<()> {
    let files = Files::from(folder.join("samples.jsonl"));
    let samples = Samples::open(&files, Tokenizer::open(folder)?.max_id() as usize + 1)?;
    samples.of("ab").map(drop)
}

fn sample_set(folder: &Path) -> Result<()> {
    let files = Files::from(folder.join("samples.jsonl"));
    let mut sets = [SampleSet::open("samples", &files)?];
    if align(&mut sets, true).is_ok() {
        let draws = Draws { count: 3, seed: 0 };
        Diversity::new(&sets[0], None, Unit::Words, draws)?;
    }
    Ok(())
}

fn report(folder: &Path) -> Result<()> {
    let run = Recorded::open(folder)?;
    assert!(page(std::slice::from_ref(&run), None).ends_with("</html>\n"));
    assert!(page(&[run.clone(), run], Some(1)).ends_with("</html>\n"));
    Ok(())
}

fn story(folder: &Path) -> Result<()> {
    let grammar = Grammar::open(&folder.join("grammar.toml"))?;
    let mut rng = expo::lab::story::rng(0, 0);
    let text = grammar.draw_prompt(&mut rng);
    grammar
        .prompt(&text)
        .map(drop)
        .ok_or_else(|| unreachable!("{text:?} is a prompt"))
}
