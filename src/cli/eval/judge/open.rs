//! What the arguments name: the items, and the judge.

use std::path::PathBuf;
use std::str::FromStr;

use expo::data::format::Format;
use expo::data::{Files, Tokenizer};
use expo::error::{Error, Result};
use expo::eval::judge::{
    Against, Endpoint, HELPFUL_HARMLESS, Items, Judge, Lexicon, Offline, Scorer, Settings, Template,
};
use expo::session::find_tokenizer;

use super::super::super::error::flagged_as;
use super::super::super::progress::Progress;
use super::super::super::{grouped, tell};
use super::JudgeArgs;

/// A judge of this machine, as it is named.
#[derive(Debug, Clone)]
pub enum Rule {
    Length,
    Lexicon(PathBuf),
    Model(String),
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "length" => Ok(Self::Length),
            Some(("lexicon", path)) if !path.is_empty() => Ok(Self::Lexicon(path.into())),
            Some(("model", name)) if !name.is_empty() => Ok(Self::Model(name.into())),
            _ => Err(Error::input(format!("no judge {text:?}")).hint(
                "valid: length, lexicon:FILE, model:MODEL; a judge at OPENAI_BASE_URL is --judge-model",
            )),
        }
    }
}

/// The items, at most --max-items of them; what is left out is told.
pub fn items(args: &JudgeArgs, progress: &mut Progress) -> Result<Items> {
    let mut items = match &args.data {
        None => {
            let others = args.against.parse::<Files>().map_err(Error::input)?;
            Items::open(&args.samples, args.index, &Against::Samples(&others))?
        }
        Some(files) => {
            let format = match args.format {
                Some(format) => format,
                None => Format::of_file(files)?,
            };
            let open = |name: &String| {
                let path = find_tokenizer(name, None, &mut |event| progress.show(event))?;
                Tokenizer::open(&path)
            };
            let tokenizer = args.tokenizer.as_ref().map(open).transpose()?;
            let chosen = Against::Chosen(files, format, tokenizer.as_ref());
            Items::open(&args.samples, args.index, &chosen)?
        }
    };
    items.items.truncate(args.max_items.unwrap_or(usize::MAX));
    for (count, what) in [
        (
            items.unanswered,
            "prompts of the samples have no answer on the other side",
        ),
        (items.unusable, "rows have no usable chosen answer"),
        (
            items.repeated,
            "rows have the prompt of an earlier one, whose answer is taken",
        ),
    ] {
        if count > 0 {
            tell(format!("{what}: {}", grouped(count)));
        }
    }
    Ok(items)
}

/// The judge. For a dry run no key is needed.
pub fn judge(args: &JudgeArgs, progress: &mut Progress) -> Result<Judge> {
    let Some(rule) = &args.judge else {
        let template = match &args.template {
            Some(path) => Template::open(path)?,
            None => Template::parse(HELPFUL_HARMLESS)?,
        };
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let base = variable("OPENAI_BASE_URL");
        let mut key = variable("OPENAI_API_KEY");
        if args.dry_run {
            // Nobody is asked.
            key = key
                .or_else(|| Some("none".into()))
                .filter(|_| base.is_none());
        }
        let endpoint = Endpoint::new(Settings {
            base,
            key,
            model: args.judge_model.clone().unwrap_or_default(),
            request: args.request.clone().unwrap_or_default(),
            max_retries: args.max_retries,
            timeout: args.timeout.0,
            concurrency: args.concurrency,
        })?;
        return Ok(Judge::Endpoint(Box::new(endpoint), template));
    };
    Ok(match rule {
        Rule::Length => Judge::Offline(Offline::Length, "length".into()),
        Rule::Lexicon(path) => Judge::Offline(
            Offline::Lexicon(Lexicon::open(path)?),
            format!("lexicon:{}", path.display()),
        ),
        Rule::Model(name) => {
            let mut config = args.compute.model(name);
            config.reference.clone_from(&args.judge_reference);
            let opened = Scorer::open(&config, &mut |event| progress.show(event));
            let scorer = flagged_as("judge", opened)?;
            let beside = config
                .reference
                .map_or(String::new(), |name| format!(" beside {name}"));
            Judge::Offline(
                Offline::Model(Box::new(scorer)),
                format!("model:{name}{beside}"),
            )
        }
    })
}
