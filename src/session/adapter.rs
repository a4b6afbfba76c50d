//! Models with adapters: PEFT directories opened with their base, and the adapter of a run.

use std::path::Path;

use super::{Observer, Session, find_model};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::io::model_dir;
use crate::io::untrusted::{self, Document};
use crate::model::Decoder;
use crate::model::adapter::Adapter;
use crate::model::arch::Architecture;
use crate::model::merge::set_magnitudes;
use crate::model::parameters::Layout;
use crate::model::peft::{AdapterConfig, AdapterReference, PeftFolder, config_json, initialize};
use crate::model::weights::ModelFolder;

/// The adapter that a run trains.
#[derive(Debug, Clone)]
pub struct TrainedAdapter {
    config: AdapterConfig,
    seed: u64,
}

impl TrainedAdapter {
    /// What its reference is.
    pub fn reference(&self) -> AdapterReference {
        self.config.reference()
    }
}

/// The model in a directory, which may be one of an adapter: the model is then that of its base.
///
/// # Errors
/// If the base cannot be found, or either is damaged.
pub fn open_model(path: &Path, observe: Observer) -> Result<ModelFolder> {
    if !PeftFolder::is_one(path) || path.join(model_dir::CONFIG).is_file() {
        return ModelFolder::open(path);
    }
    let peft = PeftFolder::open(path)?;
    let Some(base) = &peft.base else {
        return Err(Error::input("does not say of which model the adapter is")
            .at(path.join(model_dir::ADAPTER_CONFIG).display())
            .hint("name the model, and this directory as its adapter"));
    };
    let base = find_model(base, peft.revision.as_deref(), observe)
        .map_err(|error| error.at(path.join(model_dir::ADAPTER_CONFIG).display()))?;
    ModelFolder::open(&base)?.with_peft(peft)
}

/// The adapter that a run trains on a model of this shape, if it trains one, without the model's weights.
///
/// # Errors
/// As of [`Session::with_adapter`].
pub fn adapter_of(
    config: &Config,
    arch: &Architecture,
    observe: Observer,
) -> Result<Option<Adapter>> {
    let section = config.adapter.as_ref();
    let from = section.and_then(|adapter| adapter.from.as_ref());
    let layout = Layout::new(arch);
    match (from.or(config.model.adapter.as_ref()), section) {
        (None, None) => Ok(None),
        (Some(name), _) => {
            let path = find_model(name, None, observe);
            let path = path.map_err(|error| error.at_key("adapter.from"))?;
            PeftFolder::open(&path)?.adapter(arch, &layout).map(Some)
        }
        (None, Some(adapter)) => {
            let adapter = adapter.resolve(arch, &layout);
            adapter.map(Some).map_err(|error| error.at_key("adapter"))
        }
    }
}

impl Session {
    /// With the adapter that a run trains: a new one as `config` says, or that of a directory, which goes
    /// on. A model that is opened with an adapter goes on with that.
    ///
    /// # Errors
    /// If the model has no layer that the config names, or the directory is no adapter of it.
    pub fn with_adapter(
        mut self,
        config: Option<&AdapterConfig>,
        seed: u64,
        observe: Observer,
    ) -> Result<Self> {
        let opened = self.folder.peft().cloned();
        let section = config.is_some();
        let mut config = match (config, &opened) {
            (None, None) => return Ok(self),
            (Some(config), _) => config.clone(),
            (None, Some(_)) => AdapterConfig::default(),
        };
        let key = |error: Error| error.at_key("adapter");
        let from = match (&config.from, opened) {
            (from, Some(opened)) if from.is_some() || section => {
                return Err(Error::input(
                    "is the directory of an adapter, beside a section [adapter]",
                )
                .at(opened.path.display())
                .hint(
                    "name its base in model.model_name_or_path, and the directory in adapter.from",
                )
                .at_key("model.model_name_or_path"));
            }
            (Some(_), Some(_)) => None,
            (Some(name), None) => {
                let path = find_model(name, None, observe);
                let path = path.map_err(|error| error.at_key("adapter.from"))?;
                Some(PeftFolder::open(&path)?)
            }
            (None, Some(opened)) => {
                config.from = Some(opened.path.display().to_string());
                Some(opened)
            }
            (None, None) => None,
        };
        let (base, revision) = self.base_name(from.as_ref());
        let folder = match from {
            Some(mut peft) => {
                config = config.continuing(&peft.config).map_err(key)?;
                peft.config.dropout = config.dropout;
                let mut folder = self.folder.without_adapter().clone();
                folder.files = self.folder.files.clone();
                folder.with_peft(peft)?
            }
            None => {
                let folder = self.folder.clone();
                let adapter = config.resolve(&folder.arch, folder.layout()).map_err(key)?;
                folder.with_adapter(&adapter)
            }
        };
        if config.use_dora && config.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(
                Error::input("dropout beside use_dora, which PEFT applies to W, too")
                    .hint("set dropout to 0, or leave use_dora out")
                    .at_keys(&["dropout", "use_dora"])
                    .at_key("adapter"),
            );
        }
        self.folder = folder;
        let adapter = self.folder.layout().adapter.clone().unwrap_or_default();
        let arch = &self.folder.arch;
        let text = config_json(&config, &adapter, arch, &base, revision.as_deref())?;
        let text = serde_json::to_vec_pretty(&text).map_err(|e| Error::failed(e.to_string()))?;
        let path = self
            .folder
            .files
            .directory()
            .join(model_dir::ADAPTER_CONFIG);
        let document = Document::of(&path, untrusted::CONFIG, text);
        self.folder
            .files
            .replace(model_dir::ADAPTER_CONFIG, document);
        self.adapter = Some(TrainedAdapter { config, seed });
        Ok(self)
    }

    /// Whether the reference is the adapter as it begins, rather than its base.
    pub fn starts_at_adapter(&self) -> bool {
        let adapter = self.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.reference() == AdapterReference::Start)
    }

    /// The adapter that the run trains.
    pub fn adapter(&self) -> Option<&TrainedAdapter> {
        self.adapter.as_ref()
    }

    /// How an adapter names its base: a name on the hub, or a path that does not depend on the working
    /// directory.
    fn base_name(&self, from: Option<&PeftFolder>) -> (String, Option<String>) {
        let named = &self.config.model_name_or_path;
        let (name, revision) =
            match from.filter(|_| self.folder.peft().is_some() && self.config.adapter.is_none()) {
                Some(PeftFolder {
                    base: Some(base),
                    revision,
                    ..
                }) => (base, revision),
                _ => (named, &self.config.revision),
            };
        let path = Path::new(name);
        let name = match path.is_dir() {
            true => path
                .canonicalize()
                .map_or_else(|_| name.clone(), |path| path.display().to_string()),
            false => name.clone(),
        };
        (name, revision.clone())
    }

    /// Gives the adapter of a policy, whose base has the content hash `base`, the values that it begins with;
    /// returns the policy's content hash.
    pub fn start_adapter(&self, policy: &mut Decoder, base: &str) -> Result<String> {
        let Some(TrainedAdapter { config, seed }) = &self.adapter else {
            return Ok(base.to_owned());
        };
        if self.folder.peft().is_some() {
            return self.folder.load_adapter(policy, base);
        }
        let Some(adapter) = policy.weights().layout().adapter.clone() else {
            return Err(Error::failed("a policy without its adapter"));
        };
        initialize(&adapter, config.init, *seed, policy.weights_mut())?;
        set_magnitudes(policy.weights_mut())?;
        // Its products are zeros.
        Ok(base.to_owned())
    }

    /// The reference as a model in memory, beside the policy. An adapter's base is the policy's own
    /// weights, as far as none of them is trained.
    pub fn reference_beside(
        &self,
        policy: &Decoder,
        hash: Option<&str>,
        observe: Observer,
    ) -> Result<Decoder> {
        let Some(adapter) = &self.adapter else {
            return self.load_reference(hash, observe);
        };
        if self.reference(observe)?.is_some() {
            return self.load_reference(hash, observe);
        }
        let saved = |policy: &Decoder| {
            let adapter = policy.weights().layout().adapter.as_ref();
            adapter.is_some_and(|adapter| !adapter.saved.is_empty())
        };
        match (adapter.reference(), saved(policy)) {
            (AdapterReference::Base, false) => Ok(policy.base()),
            (AdapterReference::Base, true) => {
                let mut base = policy.with_own_trained()?;
                self.folder.load_trained(base.weights_mut())?;
                base.adapter = false;
                Ok(base)
            }
            (AdapterReference::Start, _) => self.start_beside(policy),
        }
    }

    /// The policy as it began, in the same memory but for what is trained.
    pub fn start_beside(&self, policy: &Decoder) -> Result<Decoder> {
        let mut start = policy.with_own_trained()?;
        // What is trained whole begins as the base has it.
        self.folder.load_trained(start.weights_mut())?;
        self.start_adapter(&mut start, "")?;
        start.adapter = self.starts_at_adapter();
        Ok(start)
    }
}
