//! `expo init`: a model with random weights.

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;
use expo::checkpoint::{self, SaveDtype};
use expo::data::Tokenizer;
use expo::error::{Error, Result};
use expo::io::durable::{self, Staging, check_no_link, json_text};
use expo::io::model_dir::{CONFIG, GENERATION_CONFIG, ModelFiles, TOKENIZER, TOKENIZER_CONFIG};
use expo::io::untrusted::{self, Document};
use expo::model::arch::ConfigJson;
use expo::model::family::family;
use expo::model::init::fresh;
use serde_json::{Map, Value, json};

use super::out::directory;
use super::{answer, grouped};

/// Create a model with random weights, of any supported shape
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct InitArgs {
    /// Take the shape from this config.json, or from the one in this directory
    #[arg(long, value_name = "CONFIG")]
    config_json: PathBuf,

    /// Copy this tokenizer.json, or the one in this directory
    #[arg(long, value_name = "TOKENIZER")]
    tokenizer: PathBuf,

    /// Create this directory; one that is not empty is refused
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Seed the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Write the weights in f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: SaveDtype,

    /// Print one JSON object: `parameters`, `output`
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Weights are drawn as the family initializes them: matrices normal with the
config's initializer_range, biases 0, norms 1; norms of Gemma 0, GPT-2's output
projections smaller the more layers there are. The same seed gives the same
weights on any machine. The result is a model in Hugging Face form, for expo and
transformers.

Families (model_type in config.json): gemma2, gemma3_text, gpt2, gpt_neox,
granite, llama, mistral, mixtral, olmo2, olmo3, phi3, qwen2, qwen3, qwen3_moe,
smollm3. gemma3 (multimodal) can be trained, not created.
The tokenizer must not have more ids than the config's vocab_size. Files beside
it (tokenizer_config.json, special_tokens_map.json, a chat template, ...) and a
generation_config.json beside the config are copied.

Example:
  $ cat config.json
  {\"model_type\": \"llama\", \"vocab_size\": 32000, \"hidden_size\": 256,
   \"intermediate_size\": 688, \"num_hidden_layers\": 4, \"num_attention_heads\": 8,
   \"bos_token_id\": 1, \"eos_token_id\": 2}
  $ expo init --config-json config.json --tokenizer llama/tokenizer.json \\
      --out small --seed 1";

/// Runs the command.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    durable::check_new(&args.out)?;
    directory(&args.out)?;
    check_no_link(&args.out)?;
    let sources = Sources::read(args)?;
    let config = ConfigJson::of(&sources.config)?;
    let family = family(&config)?;
    let arch = (family.architecture)(&config)?;
    if !family.kept.is_empty() {
        return Err(config
            .error(format!(
                "a {} model has parts that read images, which expo does not make",
                family.model_type
            ))
            .hint("take a config of a model of text")
            .into());
    }
    let tokenizer = sources.tokenizer()?;
    tokenizer
        .check_fits(arch.vocab_size)
        .map_err(|error| error.at(sources.definition.path().display()))?;
    let model = fresh(arch, args.seed, &Device::Cpu)?;

    let mut value = config.value;
    if value["architectures"].as_array().is_none_or(Vec::is_empty) {
        value["architectures"] = json!([family.class]);
    }
    let companions = |staging: &mut Staging| sources.write(staging, &value, &tokenizer);
    checkpoint::create(&model, value.clone(), &args.out, args.dtype, companions)?;
    let (parameters, out) = (model.weights().layout().len, args.out.display());
    let text = match args.json {
        true => format!(
            "{}\n",
            json!({"parameters": parameters, "output": args.out})
        ),
        false => format!("parameters {}\noutput {out}\n", grouped(parameters)),
    };
    answer(&text)
}

/// The files that a new model is made of.
struct Sources {
    config: Document,
    generation: Document,
    /// `tokenizer.json`, by whatever name.
    definition: Document,
    /// What lies beside the tokenizer.
    beside: ModelFiles,
}

impl Sources {
    fn read(args: &InitArgs) -> Result<Self> {
        let within = |path: &Path, name: &str| match path.is_dir() {
            true => path.join(name),
            false => path.to_owned(),
        };
        let config = within(&args.config_json, CONFIG);
        let definition = within(&args.tokenizer, TOKENIZER);
        if !definition.is_file() {
            return Err(Error::input("no such file")
                .at(definition.display())
                .hint("--tokenizer names a tokenizer.json or the folder that holds it"));
        }
        let generation = config.with_file_name(GENERATION_CONFIG);
        Ok(Self {
            generation: Document::read(&generation, untrusted::CONFIG),
            config: Document::read(&config, untrusted::CONFIG),
            beside: ModelFiles::open(durable::parent(&definition))?,
            definition: Document::read(&definition, untrusted::TOKENIZER),
        })
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        let configs = [self.generation.clone(), self.config.clone()];
        let tokenizer_config = self.beside.get(TOKENIZER_CONFIG);
        Tokenizer::from_documents(&self.definition, &configs, &tokenizer_config)
    }

    /// Writes what a model folder has besides config and weights.
    fn write(&self, staging: &mut Staging, config: &Value, tokenizer: &Tokenizer) -> Result<()> {
        staging.bytes(TOKENIZER, self.definition.bytes()?)?;
        let own = [TOKENIZER, GENERATION_CONFIG];
        let beside = self.beside.companions();
        for (name, file) in beside.filter(|(name, _)| !own.contains(name)) {
            staging.bytes(name, file.bytes()?)?;
        }
        if !self.beside.get(TOKENIZER_CONFIG).exists() {
            let text = json_text(&minimal(config, tokenizer))?;
            staging.bytes(TOKENIZER_CONFIG, text.as_bytes())?;
        }
        match self.generation.exists() {
            true => staging.bytes(GENERATION_CONFIG, self.generation.bytes()?),
            false => {
                let text = json_text(&generation(config, tokenizer))?;
                staging.bytes(GENERATION_CONFIG, text.as_bytes())
            }
        }
    }
}

/// A `generation_config.json` with the config's special tokens.
fn generation(config: &Value, tokenizer: &Tokenizer) -> Value {
    let mut object = Map::new();
    for key in ["bos_token_id", "pad_token_id"] {
        if !config[key].is_null() {
            object.insert(key.into(), config[key].clone());
        }
    }
    let ends = match tokenizer.ends() {
        [end] => json!(end),
        ends => json!(ends),
    };
    object.insert("eos_token_id".into(), ends);
    object.into()
}

/// The least of a `tokenizer_config.json` that transformers reads.
fn minimal(config: &Value, tokenizer: &Tokenizer) -> Value {
    let mut object = Map::new();
    object.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    let id = |key: &str| config[key].as_u64().and_then(|id| u32::try_from(id).ok());
    for (name, id) in [
        ("bos_token", id("bos_token_id")),
        ("eos_token", Some(tokenizer.eos())),
        ("pad_token", id("pad_token_id")),
    ] {
        if let Some(token) = id.and_then(|id| tokenizer.token(id)) {
            object.insert(name.into(), token.into());
        }
    }
    if let Some(length) = config["max_position_embeddings"].as_u64() {
        object.insert("model_max_length".into(), length.into());
    }
    object.into()
}
