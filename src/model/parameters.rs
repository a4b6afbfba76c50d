//! All parameters of a model as views of one flat buffer: those that are trained, then those that are
//! frozen, each sorted by name.
//!
//! *Why*: an optimizer step, a gradient norm or a shard is then one pass over one buffer, in an
//! order that no hash map decides. Gradients and optimizer moments are laid out like the beginning of
//! the weights, and exist for what is trained only.

mod layout;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::device::{download, download_split, upload, upload_split, zeros};
use crate::kernels::{Dst, Precision, elementwise, optimizer, row_invariant};

pub(crate) use layout::transpose;
pub use layout::{Entry, Init, Layout};

/// A parameter's index in the weights and, where it is trained, in gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    id: usize,
    gradient: Option<usize>,
}

/// Weights as one pass computes with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub params: &'a Params,
    /// What matmuls round their operands to.
    pub precision: Precision,
    /// Row-invariant: what a row gives does not depend on the rows beside it.
    pub row_invariant: bool,
    /// The weights of experts where these alone are row-invariant: other matmuls have enough rows for
    /// that to be so.
    pub row_invariant_experts: Option<&'a Params>,
}

impl Weights<'_> {
    /// As experts compute with them.
    pub fn of_experts(self) -> Self {
        match self.row_invariant_experts {
            Some(params) => Self {
                params,
                row_invariant: true,
                ..self
            },
            None => self,
        }
    }
}

impl Parameter {
    /// Whether it is trained.
    pub fn trainable(self) -> bool {
        self.gradient.is_some()
    }

    /// How many elements it has.
    pub fn elements(self, layout: &Layout) -> usize {
        layout.entries[self.id].range.len()
    }

    /// Its shape.
    pub fn shape(self, layout: &Layout) -> &[usize] {
        &layout.entries[self.id].shape
    }

    /// Its view of the weights.
    pub fn of(self, weights: Weights<'_>) -> &Tensor {
        weights.params.view(self.id)
    }

    /// Its view of the gradients, to write, where it is trained.
    pub fn gradient(self, gradients: &mut Params) -> Option<Dst<'_>> {
        self.gradient.map(|id| (&mut gradients.views[id]).into())
    }

    /// The views of the gradients of a weight and of its bias, to write, where they are trained.
    pub fn gradients(
        self,
        bias: Option<Self>,
        gradients: &mut Params,
    ) -> (Option<Dst<'_>>, Option<Dst<'_>>) {
        let views = &mut gradients.views;
        match (self.gradient, bias.and_then(|bias| bias.gradient)) {
            (Some(weight), Some(bias)) => {
                let views = views.get_disjoint_mut([weight, bias]);
                let [weight, bias] = views.expect("a weight and its bias are two parameters");
                (Some(weight.into()), Some(bias.into()))
            }
            (Some(weight), None) => (Some((&mut views[weight]).into()), None),
            (None, Some(bias)) => (None, Some((&mut views[bias]).into())),
            (None, None) => (None, None),
        }
    }
}

impl Layout {
    /// A parameter of that name.
    ///
    /// # Panics
    /// If the architecture has no such parameter: the caller built the name from the same one.
    pub(super) fn parameter(&self, name: &str) -> Parameter {
        self.find_parameter(name)
            .unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// The parameter of that name, if there is one.
    pub(super) fn find_parameter(&self, name: &str) -> Option<Parameter> {
        let id = self.find(name)?;
        let before = self.entries[..id].iter().filter(|entry| entry.trainable);
        let gradient = self.entries[id].trainable.then(|| before.count());
        Some(Parameter { id, gradient })
    }
}

/// The bytes of a tensor.
pub(super) fn bytes(x: &Tensor) -> u64 {
    (x.elem_count() * x.dtype().size_in_bytes()) as u64
}

/// Where bf16 parameters have the rest of the f32 that they stand for.
#[derive(Debug, Clone)]
pub enum Master {
    /// Nowhere: the buffer's own elements are the values.
    Itself,
    /// A copy in f32, of what is trained at least, (elements from the first on).
    F32(Tensor),
    /// The i16 that each bf16 lacks, of what is trained at least, (elements from the first on), as
    /// [`upload_split`] has it.
    Low(Tensor),
}

/// A flat buffer, (elements), with a view for each parameter.
#[derive(Debug, Clone)]
pub struct Params {
    layout: Arc<Layout>,
    flat: Tensor,
    views: Vec<Tensor>,
    master: Master,
    /// At least the magnitude of every value; infinite if unknown.
    largest: f64,
}

impl Params {
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
            largest: f64::INFINITY,
        })
    }

    /// The same parameters, whose matrices are kept rounded to bf16.
    pub(super) fn rounded(&self) -> Result<Self> {
        let mut same = self.clone();
        for view in same.views.iter_mut().filter(|view| view.rank() >= 2) {
            *view = row_invariant::rounded(view)?;
        }
        Ok(same)
    }

    /// The same buffer, whose values are those of `master`.
    pub fn with_master(self, master: Master) -> Self {
        Self { master, ..self }
    }

    /// A buffer of zeros.
    pub fn zeros(layout: Arc<Layout>, dtype: DType, device: &Device) -> Result<Self> {
        let flat = zeros(layout.len, dtype, device)?;
        let zeros = Self::new(layout, flat)?;
        Ok(Self {
            largest: 0.0,
            ..zeros
        })
    }

    /// The names, shapes and places.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The whole buffer, (elements).
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The whole buffer, (elements), to be written in place.
    pub fn flat_mut(&mut self) -> Dst<'_> {
        self.largest = f64::INFINITY;
        (&mut self.flat).into()
    }

    /// At least the magnitude of every value, as far as values were [`set`](Self::set): infinite after
    /// other writes.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// Says that no value is of a larger magnitude than this.
    pub fn set_largest(&mut self, largest: f64) {
        self.largest = largest;
    }

    /// What an update writes to: the first `len` elements, with their master weights.
    pub fn updated(&mut self, len: usize) -> Result<optimizer::Weights<'_>> {
        self.largest = f64::INFINITY;
        let first = |x: &Tensor| x.narrow(0, 0, len);
        let weights = Dst::view(&mut self.flat, first)?;
        Ok(match &mut self.master {
            Master::Itself => optimizer::Weights::Plain(weights),
            Master::F32(master) => optimizer::Weights::Master {
                weights,
                master: Dst::view(master, first)?,
            },
            Master::Low(low) => optimizer::Weights::Split {
                weights,
                low: Dst::view(low, first)?,
            },
        })
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
        let part = |x: &Tensor, range: &Range<usize>| x.narrow(0, range.start, range.len());
        let [first, rest] = self.divide(range);
        let mut values = match &self.master {
            _ if first.is_empty() => Vec::new(),
            Master::Itself => download(&part(&self.flat, &first)?)?,
            Master::F32(master) => download(&part(master, &first)?)?,
            Master::Low(low) => download_split(&part(&self.flat, &first)?, &part(low, &first)?)?,
        };
        if !rest.is_empty() {
            values.extend(download(&part(&self.flat, &rest)?)?);
        }
        Ok(values)
    }

    /// Sets the values of the elements from `start` on, in the memory that the views share.
    pub fn set(&mut self, start: usize, values: &[f32]) -> Result<()> {
        fn part<'a>(x: &'a mut Tensor, range: &Range<usize>) -> Result<Dst<'a>> {
            Dst::view(x, |x| x.narrow(0, range.start, range.len()))
        }
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        self.largest = self.largest.max(f64::from(largest));
        let [first, rest] = self.divide(start..start + values.len());
        let (head, tail) = values.split_at(first.len());
        match &mut self.master {
            _ if first.is_empty() => {}
            Master::Itself => upload(head, part(&mut self.flat, &first)?)?,
            Master::F32(master) => {
                upload(head, part(&mut self.flat, &first)?)?;
                upload(head, part(master, &first)?)?;
            }
            Master::Low(low) => {
                upload_split(head, part(&mut self.flat, &first)?, part(low, &first)?)?;
            }
        }
        match rest.is_empty() {
            true => Ok(()),
            false => upload(tail, part(&mut self.flat, &rest)?),
        }
    }

    /// The elements of `range` that the master weights are of, then the others.
    fn divide(&self, range: Range<usize>) -> [Range<usize>; 2] {
        let end = match &self.master {
            Master::Itself => range.end,
            Master::F32(master) | Master::Low(master) => master.elem_count(),
        };
        let end = end.clamp(range.start, range.end);
        [range.start..end, end..range.end]
    }

    /// Fills the buffer with zeros in place.
    pub fn clear(&mut self) -> Result<()> {
        elementwise::clear(&mut self.flat)
    }
}
