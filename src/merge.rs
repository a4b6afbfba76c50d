//! Adapters merged into the weights of their base: a model that needs no adapter.
//!
//! *Why*: tensor by tensor, from the files of the base into those of the result, so that memory holds one
//! tensor of the model whatever its size.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::checkpoint::{SaveDtype, create_from};
use crate::error::{Error, Result};
use crate::io::model_dir;
use crate::model::adapter::Adapter;
use crate::model::merge::merged_with;
use crate::model::parameters::{Entry, Layout, Params};
use crate::model::peft::PeftFolder;
use crate::model::weights::ModelFolder;
use crate::session::{Observer, find_model};

/// What is merged.
#[derive(Debug)]
pub struct Merge {
    /// The base: a directory, or a name on the hub; where it is left out, the one that the first adapter
    /// names.
    pub model: Option<String>,
    /// Branch, tag or commit of the base on the hub.
    pub revision: Option<String>,
    /// The adapters, each a directory with the factor of what it changes.
    pub adapters: Vec<(PathBuf, f64)>,
    /// The dtype of the merged weights; by default that of the base's files.
    pub dtype: Option<SaveDtype>,
}

/// What was merged.
#[derive(Debug)]
pub struct Merged {
    /// The base.
    pub base: PathBuf,
    /// Parameters that differ from the base's.
    pub changed: usize,
    /// All parameters.
    pub parameters: usize,
    /// Their dtype.
    pub dtype: SaveDtype,
}

/// An adapter that is held beside the base's files.
struct Held {
    adapter: Adapter,
    params: Params,
    factor: f64,
}

/// Writes `W + sum of factor (W_adapter - W)` of every parameter as the new directory `out`, computed in f32, of
/// several adapters in f64, and rounded once.
///
/// # Errors
/// If an adapter is of another model, a weight does not fit the dtype, or `out` is there.
pub fn merge(asked: &Merge, out: &Path, observe: Observer) -> Result<Merged> {
    let opened = asked.adapters.iter();
    let opened = opened.map(|(path, factor)| {
        let path = find_model(&path.display().to_string(), None, observe)?;
        Ok((PeftFolder::open(&path)?, *factor))
    });
    let opened: Vec<(PeftFolder, f64)> = opened.collect::<Result<_>>()?;
    let base = match (&asked.model, opened.first()) {
        (Some(model), _) => (model.clone(), asked.revision.clone()),
        (
            None,
            Some((
                PeftFolder {
                    base: Some(base),
                    revision,
                    ..
                },
                _,
            )),
        ) => (base.clone(), revision.clone()),
        _ => {
            return Err(
                Error::input("the adapter does not say of which model it is")
                    .hint("name the base")
                    .at_parameter("model"),
            );
        }
    };
    let path = find_model(&base.0, base.1.as_deref(), observe)?;
    if PeftFolder::is_one(&path) && !path.join(model_dir::CONFIG).is_file() {
        return Err(Error::input("is an adapter itself")
            .at(path.display())
            .hint("name its base, and both as adapters"));
    }
    let mut folder = ModelFolder::open(&path)?;
    if folder.is_quantized() {
        return Err(
            Error::input("the base is quantized, and merged weights would be none of its")
                .at(path.display())
                .hint("merge into the model that it was made from"),
        );
    }
    let held = opened
        .iter()
        .map(|(peft, factor)| Held::open(peft, *factor, &folder));
    let held: Vec<Held> = held.collect::<Result<_>>()?;
    // Of several adapters the last one's tokenizer, as that of a model that is trained on.
    let mut layout = folder.layout().clone();
    for ((peft, _), held) in opened.iter().zip(&held) {
        folder.take_companions(peft)?;
        let names = &folder.arch.names;
        if folder.arch.tied && held.adapter.unties(&names.embed, &names.head) {
            let saved_beside = layout.saved_beside;
            folder.arch.tied = false;
            layout = Layout {
                saved_beside,
                ..Layout::new(&folder.arch)
            };
        }
    }
    let dtype = asked.dtype.unwrap_or(match folder.stored_dtype() {
        safetensors::Dtype::F16 => SaveDtype::F16,
        safetensors::Dtype::BF16 => SaveDtype::BF16,
        _ => SaveDtype::F32,
    });
    let names = &folder.arch.names;
    let [embed, head] = [&names.embed, &names.head].map(|name| format!("{name}.weight"));
    let stored = |entry: &Entry| -> Result<Vec<f32>> {
        // A head that was tied.
        let was_tied = entry.name == head && folder.layout().find(&head).is_none();
        folder.values(if was_tied { &embed } else { &entry.name })
    };
    let values = |entry: &Entry| -> Result<Vec<f32>> { merged(entry, stored(entry)?, &held) };
    let tied = folder.arch.tied;
    create_from((&layout, tied), &folder.files, out, dtype, &values)?;
    let changed = layout
        .entries
        .iter()
        .filter(|entry| held.iter().any(|held| held.changes(&entry.name)));
    Ok(Merged {
        base: path,
        changed: changed.count(),
        parameters: layout.entries.len(),
        dtype,
    })
}

impl Held {
    fn open(peft: &PeftFolder, factor: f64, base: &ModelFolder) -> Result<Self> {
        let adapter = peft.adapter(&base.arch, base.layout())?;
        let with = base.clone().with_adapter(&adapter);
        let layout = Layout {
            adapter: Some(adapter.clone()),
            ..with.layout().trainable()
        };
        let mut params = Params::zeros(layout.into(), DType::F32, &Device::Cpu)?;
        peft.load_into(&mut params)?;
        Ok(Self {
            adapter,
            params,
            factor,
        })
    }

    fn changes(&self, parameter: &str) -> bool {
        let layers = &self.adapter.layers;
        self.adapter.saved.iter().any(|name| name == parameter)
            || layers.iter().any(|layer| layer.weight() == parameter)
    }

    /// A parameter as it is with this adapter alone, from its values in the base; `None` where it is the
    /// same.
    fn values(&self, entry: &Entry, base: &[f32]) -> Result<Option<Vec<f32>>> {
        let layout = self.params.layout();
        if let Some(id) = layout.find(&entry.name) {
            return self
                .params
                .values(layout.entries[id].range.clone())
                .map(Some);
        }
        let layers = &self.adapter.layers;
        let Some(layer) = layers.iter().find(|layer| layer.weight() == entry.name) else {
            return Ok(None);
        };
        let weight = Tensor::from_slice(base, entry.shape.as_slice(), &Device::Cpu)?;
        let whole = merged_with(&weight, &self.params, layer)?;
        Ok(Some(whole.flatten_all()?.to_vec1()?))
    }
}

/// A parameter with all adapters.
fn merged(entry: &Entry, base: Vec<f32>, held: &[Held]) -> Result<Vec<f32>> {
    if let [Held { factor: 1.0, .. }] = held {
        return Ok(held[0].values(entry, &base)?.unwrap_or(base));
    }
    let mut sums: Option<Vec<f64>> = None;
    for held in held {
        let Some(values) = held.values(entry, &base)? else {
            continue;
        };
        let sums = sums.get_or_insert_with(|| base.iter().map(|&x| f64::from(x)).collect());
        for ((sum, value), base) in sums.iter_mut().zip(values).zip(&base) {
            *sum += held.factor * (f64::from(value) - f64::from(*base));
        }
    }
    Ok(match sums {
        Some(sums) => sums.into_iter().map(|sum| sum as f32).collect(),
        None => base,
    })
}
