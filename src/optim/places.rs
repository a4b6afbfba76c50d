//! Where parameters lie in buffers that have some of them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::kernels::Dst;
use crate::kernels::device::{download_bytes, upload_bytes};
use crate::model::parameters::{Entry, Layout, Params};

/// The parameters that lie in a range.
pub(super) fn within<'a>(
    layout: &'a Layout,
    range: &Range<usize>,
) -> impl Iterator<Item = &'a Entry> + use<'a> {
    let range = range.clone();
    let is_within =
        move |entry: &&Entry| range.start <= entry.range.start && entry.range.end <= range.end;
    layout.entries.iter().filter(is_within)
}

/// The layout of these parameters, one behind the other.
pub(super) fn placed(mut entries: Vec<Entry>) -> Layout {
    let mut len = 0;
    for entry in &mut entries {
        let start = len;
        len += entry.shape.iter().product::<usize>();
        entry.range = start..len;
    }
    Layout {
        entries,
        len,
        trainable_len: len,
        saved_beside: 0,
        adapter: None,
    }
}

/// Fills a buffer with the values that its parameters have in another.
pub(super) fn copy(from: &Params, to: &mut Params) -> Result<()> {
    for entry in &Arc::clone(to.layout()).entries {
        let range = place(from, entry)?;
        match to.flat().dtype() {
            DType::U8 => upload_bytes(&download_bytes(&part(from, &range)?)?, of(to, entry)?)?,
            _ => to.set(entry.range.start, &from.values(range)?)?,
        }
    }
    Ok(())
}

/// Some elements of a buffer.
pub(super) fn part(params: &Params, range: &Range<usize>) -> Result<Tensor> {
    Ok(params.flat().narrow(0, range.start, range.len())?)
}

/// A parameter's elements in a buffer that has it, if not all.
pub(super) fn of<'a>(params: &'a mut Params, entry: &Entry) -> Result<Dst<'a>> {
    let range = place(params, entry)?;
    let all = params.flat_mut();
    all.narrowed(|x| x.narrow(0, range.start, range.len()))
}

/// Where they are.
pub(super) fn place(params: &Params, entry: &Entry) -> Result<Range<usize>> {
    let layout = params.layout();
    let missing = || Error::failed(format!("no moment of {}", entry.name));
    let id = layout.find(&entry.name).ok_or_else(missing)?;
    Ok(layout.entries[id].range.clone())
}
