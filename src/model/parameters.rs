//! All parameters of a model as views of one flat buffer, sorted by name.
//!
//! *Why*: an optimizer step, a gradient norm or a shard is then one pass over one buffer, in an
//! order that no hash map decides. Gradients and optimizer moments have the same layout.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::arch::{Architecture, Norm};
use crate::error::Result;
use crate::kernels::Precision;
use crate::kernels::device::{download, download_split, upload, upload_split};
use crate::kernels::sampling::draws_from;
use crate::kernels::{elementwise, row_invariant};

/// How a parameter starts in a fresh model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and the architecture's standard deviation.
    Normal,
    /// Normal, except one row of zeros.
    NormalWithZeroRow(usize),
    /// All ones: the weight of a norm.
    One,
    /// All zeros: a bias.
    Zero,
}

/// One parameter of the flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Hugging Face's name, e.g. `model.norm.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where it is in the flat buffer, in elements.
    pub range: Range<usize>,
    /// Whether decoupled weight decay applies: to matrices, not to biases and norms.
    pub decay: bool,
    /// How it starts.
    pub init: Init,
}

/// The names, shapes and places of all parameters, sorted by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The parameters.
    pub entries: Vec<Entry>,
    /// The number of elements of the flat buffer.
    pub len: usize,
}

impl Layout {
    /// The layout of a model's parameters.
    pub fn new(arch: &Architecture) -> Self {
        let mut list = List::default();
        let (hidden, names) = (arch.hidden_size, &arch.names);
        let table = arch.zero_row.map_or(Init::Normal, Init::NormalWithZeroRow);
        list.add(
            format!("{}.weight", names.embed),
            vec![arch.vocab_size, hidden],
            table,
        );
        if !arch.tied {
            list.add(
                format!("{}.weight", names.head),
                vec![arch.vocab_size, hidden],
                Init::Normal,
            );
        }
        let bias = matches!(arch.norm, Norm::LayerNorm { .. });
        list.norm(names.final_norm, hidden, bias);
        let (query, key) = (arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim);
        let widths = if arch.fused_qkv {
            vec![query + 2 * key]
        } else {
            vec![query, key, key]
        };
        for layer in 0..arch.layers {
            let name = |part: &str| block_name(arch, layer, part);
            list.norm(&name(names.norm1), hidden, bias);
            list.norm(&name(names.norm2), hidden, bias);
            for part in names.qk_norm.iter().flatten() {
                list.norm(&name(part), arch.head_dim, bias);
            }
            for (part, out) in names.qkv.iter().zip(&widths) {
                list.linear(&name(part), *out, hidden, arch.attention_bias.0);
            }
            list.linear(
                &name(names.attention_out),
                hidden,
                query,
                arch.attention_bias.1,
            );
            for part in names.mlp_in {
                list.linear(&name(part), arch.intermediate_size, hidden, arch.mlp_bias);
            }
            list.linear(
                &name(names.mlp_out),
                hidden,
                arch.intermediate_size,
                arch.mlp_bias,
            );
        }
        list.sorted()
    }

    /// The place of a parameter in [`Self::entries`].
    ///
    /// # Panics
    /// If the architecture has no such parameter: the caller built the name from the same one.
    pub fn id(&self, name: &str) -> usize {
        self.find(name)
            .unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// The place of a parameter, if there is one of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.entries
            .binary_search_by(|entry| entry.name.as_str().cmp(name))
            .ok()
    }
}

/// `{block}{layer}.{part}`.
pub(super) fn block_name(arch: &Architecture, layer: usize, part: &str) -> String {
    format!("{}{layer}.{part}", arch.names.block)
}

#[derive(Default)]
struct List(Vec<Entry>);

impl List {
    fn add(&mut self, name: String, shape: Vec<usize>, init: Init) {
        let decay = matches!(init, Init::Normal | Init::NormalWithZeroRow(_));
        self.0.push(Entry {
            name,
            shape,
            range: 0..0,
            decay,
            init,
        });
    }

    fn norm(&mut self, name: &str, width: usize, bias: bool) {
        self.add(format!("{name}.weight"), vec![width], Init::One);
        if bias {
            self.add(format!("{name}.bias"), vec![width], Init::Zero);
        }
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, bias: bool) {
        self.add(format!("{name}.weight"), vec![out, input], Init::Normal);
        if bias {
            self.add(format!("{name}.bias"), vec![out], Init::Zero);
        }
    }

    fn sorted(mut self) -> Layout {
        self.0.sort_by(|a, b| a.name.cmp(&b.name));
        let mut len = 0;
        for entry in &mut self.0 {
            let size: usize = entry.shape.iter().product();
            entry.range = len..len + size;
            len += size;
        }
        Layout {
            entries: self.0,
            len,
        }
    }
}

/// Where bf16 parameters have the rest of the f32 that they stand for.
#[derive(Debug, Clone)]
pub enum Master {
    /// Nowhere: the buffer's own elements are the values.
    Itself,
    /// A copy in f32, (elements).
    F32(Tensor),
    /// The i16 that each bf16 lacks, (elements), as
    /// [`upload_split`] has it.
    Low(Tensor),
}

/// A flat buffer, (elements), with a view for each parameter.
#[derive(Debug, Clone)]
pub struct Buffer {
    layout: Arc<Layout>,
    flat: Tensor,
    views: Vec<Tensor>,
    master: Master,
    /// What products with these parameters round their operands to.
    pub precision: Precision,
    /// Whether products are those of [`row_invariant`](crate::kernels::row_invariant).
    pub(super) by_row: bool,
}

impl Buffer {
    /// Wraps a flat tensor of the layout's length.
    pub fn new(layout: Arc<Layout>, flat: Tensor) -> Result<Self> {
        let view = |entry: &Entry| -> Result<Tensor> {
            let flat = flat.narrow(0, entry.range.start, entry.range.len())?;
            Ok(flat.reshape(entry.shape.as_slice())?)
        };
        let views = layout.entries.iter().map(view).collect::<Result<_>>()?;
        Ok(Self {
            layout,
            flat,
            views,
            master: Master::Itself,
            precision: Precision::Full,
            by_row: false,
        })
    }

    /// The same parameters for few rows at a time: on the processor each row is then computed by
    /// itself, and where products round to bf16, matrices are kept so.
    pub(super) fn by_row(&self) -> Result<Self> {
        let mut same = self.clone();
        if draws_from(&self.flat) {
            return Ok(same);
        }
        same.by_row = true;
        if self.precision == Precision::Bf16 {
            for view in same.views.iter_mut().filter(|view| view.rank() == 2) {
                *view = row_invariant::rounded(view)?;
            }
        }
        Ok(same)
    }

    /// The same buffer, whose values are those of `master`.
    pub fn with_master(self, master: Master) -> Self {
        Self { master, ..self }
    }

    /// A buffer of zeros.
    pub fn zeros(layout: Arc<Layout>, dtype: DType, device: &Device) -> Result<Self> {
        let flat = Tensor::zeros(layout.len, dtype, device)?;
        Self::new(layout, flat)
    }

    /// The names, shapes and places.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The whole buffer, (elements).
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// One parameter in its shape; writes in place go through to the buffer.
    pub fn view(&self, id: usize) -> &Tensor {
        &self.views[id]
    }

    /// What the buffer's elements lack.
    pub fn master(&self) -> &Master {
        &self.master
    }

    /// The values of the elements in `range`, in f32.
    pub fn values(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let part = |x: &Tensor| x.narrow(0, range.start, range.len());
        match &self.master {
            Master::Itself => download(&part(&self.flat)?),
            Master::F32(master) => download(&part(master)?),
            Master::Low(low) => download_split(&part(&self.flat)?, &part(low)?),
        }
    }

    /// Sets the values of the elements from `start` on.
    pub fn set(&self, start: usize, values: &[f32]) -> Result<()> {
        let part = |x: &Tensor| x.narrow(0, start, values.len());
        match &self.master {
            Master::Itself => upload(values, &part(&self.flat)?),
            Master::F32(master) => {
                upload(values, &part(&self.flat)?)?;
                upload(values, &part(master)?)
            }
            Master::Low(low) => upload_split(values, &part(&self.flat)?, &part(low)?),
        }
    }

    /// Fills the buffer with zeros in place.
    pub fn clear(&self) -> Result<()> {
        elementwise::clear(&self.flat)
    }
}
