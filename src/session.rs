//! What a command works with, opened once and in one place: the device and its numerics, the model's
//! directory, the tokenizer, the rows; and how a command reports and when it stops.
//!
//! Hides how names in a config become things: a model on the hub or on disk, a device, files of rows.
//!
//! *Why*: training, scoring, sampling and evaluating begin alike. Each name is resolved once, in one
//! order, and everything later takes what was resolved. So no two commands read a name differently.

mod adapter;
mod datasets;
mod event;
mod header;
mod load;
mod stop;
mod timing;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::ModelConfig;
use crate::data::{ChatConfig, Tokenizer};
use crate::error::{Error, Result};
use crate::io::hub::{Download, HubSettings, resolve_tokenizer, resolve_with};
use crate::model::Decoder;
use crate::model::parameters::Layout;
use crate::model::peft::PeftFolder;
use crate::model::recognize;
use crate::model::weights::ModelFolder;
use crate::optim::States;
use crate::ranks::Ranks;

pub use adapter::{TrainedAdapter, adapter_of, open_model};
pub use datasets::{fetch, of_missing, open_samples, prompts_only, unlabelled};
pub use event::{Event, Observer};
pub use header::RunHeader;
pub use load::Compute;
pub use stop::{Reason, StopCondition, Stopped};
pub use timing::Stopwatch;

/// A model's directory with its tokenizer, and what it is computed with. Weights are not loaded yet.
pub struct Session {
    /// Device and numerics, of the model and of its reference.
    pub compute: Compute,
    /// The model's directory.
    pub folder: ModelFolder,
    /// The model's tokenizer, which fits its embedding.
    pub tokenizer: Arc<Tokenizer>,
    config: ModelConfig,
    /// The adapter that is trained, if one is.
    adapter: Option<TrainedAdapter>,
    reference: OnceCell<Option<ModelFolder>>,
    /// Why the directory that the section names cannot be read, where another one stands in for it.
    lost: Option<Error>,
    /// The processes that share the command's work.
    pub ranks: Ranks,
}

impl Session {
    /// Opens the device, then the model that the section names.
    ///
    /// # Errors
    /// If the device is not there, the model cannot be found or is damaged, its tokenizer has ids
    /// that its embedding has no row for, or a pattern of `trainable` matches none of its parameters.
    pub fn open(config: &ModelConfig, observe: Observer) -> Result<Self> {
        Self::open_on(Compute::open(config)?, config, observe)
    }

    /// As [`open`](Self::open), on a device that is open.
    pub fn open_on(compute: Compute, config: &ModelConfig, observe: Observer) -> Result<Self> {
        observe(Event::Device(&compute.place()?));
        let (folder, tokenizer) = find_and_open(config, observe)?;
        Self::new(compute, config, folder, tokenizer)
    }

    /// As [`open_on`](Self::open_on), for a run that goes on. Where the directory that the section names
    /// cannot be read any more, the one that the run saved itself stands in for it, but for the weights
    /// that the run began with.
    pub fn resume_on(
        compute: Compute,
        config: &ModelConfig,
        saved: &Path,
        observe: Observer,
    ) -> Result<Self> {
        observe(Event::Device(&compute.place()?));
        match find_and_open(config, observe) {
            Ok((folder, tokenizer)) => Self::new(compute, config, folder, tokenizer),
            // An adapter is nothing without its model.
            Err(error) if PeftFolder::is_one(saved) => Err(error),
            Err(error) => {
                let saved_in = saved.display();
                let what = format!("{error}; going on with the files of {saved_in}");
                observe(Event::Warning(&what));
                let (folder, tokenizer) = open_directory(saved, None, observe)?;
                let session = Self::new(compute, config, folder, tokenizer)?;
                let lost = Some(error);
                Ok(Self { lost, ..session })
            }
        }
    }

    fn new(
        compute: Compute,
        config: &ModelConfig,
        folder: ModelFolder,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        let folder = match config.format()? {
            None => folder,
            Some(format) => folder
                .quantized(format)
                .map_err(|error| error.at_key("model.quantization"))?,
        };
        let folder = match &config.trainable {
            None => folder,
            Some(_) if folder.peft().is_some() => {
                return Err(Error::input(
                    "model.trainable beside an adapter, which is all that is trained",
                )
                .hint("leave it out")
                .at_key("model.trainable"));
            }
            Some(patterns) => folder
                .with_trainable(patterns)
                .map_err(|error| error.at_key("model.trainable"))?,
        };
        Ok(Self {
            compute,
            folder,
            tokenizer: Arc::new(tokenizer),
            config: config.clone(),
            adapter: None,
            reference: OnceCell::new(),
            lost: None,
            ranks: Ranks::alone(),
        })
    }

    /// The same at each of these processes, which share the work.
    #[must_use]
    pub fn with_ranks(self, ranks: &Ranks) -> Self {
        let ranks = ranks.clone();
        Self { ranks, ..self }
    }

    /// With another chat template and other end tokens, where `chat` names any.
    ///
    /// # Errors
    /// As of [`Tokenizer::with`].
    pub fn with_chat(mut self, chat: &ChatConfig) -> Result<Self> {
        if chat.leaves_files() {
            return Ok(self);
        }
        let (tokenizer, files) = Tokenizer::with(&self.folder.files, chat)?;
        check_vocabulary(&tokenizer, &self.folder)?;
        self.tokenizer = Arc::new(tokenizer);
        self.folder.files = files;
        Ok(self)
    }

    /// Whether the files of a checkpoint stand in for the directory that the section names.
    pub fn is_stand_in(&self) -> bool {
        self.lost.is_some()
    }

    /// The model's directory, for the weights that the section names; of a run that trains an adapter
    /// without it, unless its reference is the adapter as it begins.
    ///
    /// # Errors
    /// If another directory stands in for it.
    pub fn base(&self) -> Result<&ModelFolder> {
        match &self.lost {
            None if self.adapter.is_some() && !self.starts_at_adapter() => {
                Ok(self.folder.without_adapter())
            }
            None => Ok(&self.folder),
            Some(error) => Err(error
                .clone()
                .with_fact(|fact| format!("the reference needs the model's weights: {fact}"))),
        }
    }

    /// The directory of the reference where the section names one; `None` where the model is its own
    /// reference. It is looked for when it is first asked for.
    pub fn reference(&self, observe: Observer) -> Result<Option<&ModelFolder>> {
        if self.reference.get().is_none() {
            let revision = self.config.reference_revision.as_deref();
            let found = match &self.config.reference {
                Some(name) => Some(
                    find_model(name, revision, observe)
                        .map_err(|error| error.at_key("model.reference"))
                        .and_then(|path| open_model(&path, observe))?,
                ),
                None => None,
            };
            // It was not set above, so this sets it.
            let _ = self.reference.set(found);
        }
        Ok(self.reference.get().and_then(Option::as_ref))
    }

    /// Refuses another model whose tokenizer reads this model's ids as other tokens.
    pub fn check_same_tokens(&self, other: &ModelFolder) -> Result<()> {
        check_vocabulary(&self.tokenizer, other)?;
        self.tokenizer.check_same(&other.files)
    }

    /// Loads the model's weights to score and to sample; with their content hash.
    pub fn load(&self) -> Result<(Decoder, String)> {
        self.compute.load(&self.folder)
    }

    /// Loads the model's weights to be updated, with what `states` keeps beside bf16 ones, but for the
    /// values of an adapter; with their content hash.
    pub fn load_policy(&self, states: States) -> Result<(Decoder, String)> {
        self.compute.load_policy(&self.folder, states)
    }

    /// Loads the weights of the reference, which are the model's own where the section names no other.
    ///
    /// # Errors
    /// If their content hash is not `hash`, where that is known.
    pub fn load_reference(&self, hash: Option<&str>, observe: Observer) -> Result<Decoder> {
        self.compute
            .load_known(self.reference_folder(observe)?, hash)
    }

    /// As [`load_reference`](Self::load_reference), its parameters laid out as in `layout` where they are
    /// the same ones.
    pub fn load_reference_as(
        &self,
        layout: &Layout,
        hash: Option<&str>,
        observe: Observer,
    ) -> Result<Decoder> {
        let folder = self.reference_folder(observe)?.clone();
        self.compute.load_known(&folder.with_layout(layout), hash)
    }

    fn reference_folder(&self, observe: Observer) -> Result<&ModelFolder> {
        match self.reference(observe)? {
            Some(folder) => Ok(folder),
            None => self.base(),
        }
    }
}

/// The directory of the model that the section names, opened.
fn find_and_open(config: &ModelConfig, observe: Observer) -> Result<(ModelFolder, Tokenizer)> {
    let name = &config.model_name_or_path;
    let path = find_model(name, config.revision.as_deref(), observe)
        .map_err(|error| error.at_key("model.model_name_or_path"))?;
    let adapter = config.adapter.as_deref();
    let adapter = adapter.map(|name| {
        let path = find_model(name, None, observe)?;
        PeftFolder::open(&path)
    });
    let adapter = adapter.transpose();
    let adapter = adapter.map_err(|error| error.at_key("model.adapter"))?;
    open_directory(&path, adapter, observe)
}

fn open_directory(
    path: &Path,
    adapter: Option<PeftFolder>,
    observe: Observer,
) -> Result<(ModelFolder, Tokenizer)> {
    let folder = open_model(path, observe)?;
    let folder = match adapter {
        Some(_) if folder.peft().is_some() => {
            return Err(Error::input("the model has an adapter already")
                .at(path.display())
                .hint("leave one of the two out, or name the base model")
                .at_key("model.adapter"));
        }
        Some(adapter) => folder.with_peft(adapter)?,
        None => folder,
    };
    let tokenizer = Tokenizer::of(&folder.files)?;
    check_vocabulary(&tokenizer, &folder)?;
    Ok((folder, tokenizer))
}

/// The directory of a model, downloaded if need be.
pub fn find_model(name: &str, revision: Option<&str>, observe: Observer) -> Result<PathBuf> {
    check_no_file(name)?;
    let settings = HubSettings::from_env();
    let mut progress = |download: Download<'_>| observe(Event::Download(download));
    resolve_with(name, revision, &settings, &mut progress)
}

/// As [`find_model`], of a model whose weights are not needed and not downloaded.
pub fn find_tokenizer(name: &str, revision: Option<&str>, observe: Observer) -> Result<PathBuf> {
    check_no_file(name)?;
    let settings = HubSettings::from_env();
    let mut progress = |download: Download<'_>| observe(Event::Download(download));
    resolve_tokenizer(name, revision, &settings, &mut progress)
}

/// As [`find_tokenizer`], of what is on this machine: no hub is asked.
pub fn find_local_tokenizer(name: &str, revision: Option<&str>) -> Result<PathBuf> {
    let settings = HubSettings {
        offline: true,
        ..HubSettings::from_env()
    };
    resolve_tokenizer(name, revision, &settings, &mut |_| ())
}

fn check_no_file(name: &str) -> Result<()> {
    match Path::new(name).is_file() {
        true => Err(recognize::file(Path::new(name))),
        false => Ok(()),
    }
}

/// Refuses sequences that the model in `folder` has no positions for.
pub fn check_length(max_length: usize, positions: usize, folder: &Path) -> Result<()> {
    if max_length <= positions {
        return Ok(());
    }
    Err(Error::input(format!(
        "max_length is {max_length}, the model in {} was made for {positions} positions",
        folder.display()
    ))
    .at_key("data.max_length")
    .hint(format!("at most {positions}")))
}

/// Refuses a tokenizer with ids that the embedding has no row for.
fn check_vocabulary(tokenizer: &Tokenizer, folder: &ModelFolder) -> Result<()> {
    tokenizer
        .check_fits(folder.arch.vocab_size)
        .map_err(|error| error.at(folder.path.display()))
}
