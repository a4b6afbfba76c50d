//! The segments of a batch, checked once for all its layers.

use std::ops::Range;

use candle_core::Device;

use crate::error::{Error, Result};
#[cfg(any(test, feature = "cuda"))]
use crate::kernels::gpu;
use crate::segment::Segment;

/// Segments whose own ranges cover a batch's tokens, and on a GPU the lists of what its blocks do.
#[derive(Debug)]
pub struct Packing {
    pub(super) segments: Vec<Segment>,
    /// Runs of segments that see none of each other's tokens.
    pub(super) groups: Vec<Group>,
    pub(super) tokens: usize,
    pub(super) queries: usize,
    #[cfg(any(test, feature = "cuda"))]
    pub(in crate::kernels) tiles: Option<gpu::attention::Tiles>,
}

/// Segments with the tokens they cover, and where their queries begin in the output.
#[derive(Debug)]
pub(in crate::kernels) struct Group {
    pub segments: Range<usize>,
    pub tokens: Range<usize>,
    pub output: usize,
}

impl Packing {
    /// For tensors on `device`.
    ///
    /// # Errors
    /// If the own ranges do not follow each other from token 0, queries lie outside their own range,
    /// or a prefix outside its group.
    pub fn new(segments: Vec<Segment>, device: &Device) -> Result<Self> {
        let mut groups: Vec<Group> = Vec::new();
        let (mut covered, mut queries) = (0, 0);
        for (at, segment) in segments.iter().enumerate() {
            let Segment {
                prefix,
                own,
                queries: wanted,
            } = segment;
            if prefix.is_empty() || groups.is_empty() {
                groups.push(Group {
                    segments: at..at,
                    tokens: own.start..own.start,
                    output: queries,
                });
            }
            let Some(group) = groups.last_mut() else {
                continue;
            };
            let inside = prefix.is_empty()
                || (group.tokens.start <= prefix.start && prefix.end <= own.start);
            let wanted_inside =
                wanted.is_empty() || (own.start <= wanted.start && wanted.end <= own.end);
            if own.start != covered || !inside || !wanted_inside {
                return Err(Error::failed(format!(
                    "attention: {segment:?} after {covered} tokens"
                )));
            }
            (group.segments.end, group.tokens.end) = (at + 1, own.end);
            covered = own.end;
            queries += wanted.len();
        }
        #[cfg(not(any(test, feature = "cuda")))]
        let _ = device;
        Ok(Self {
            #[cfg(any(test, feature = "cuda"))]
            tiles: match gpu::serves(device) {
                true => Some(gpu::attention::Tiles::new(&segments, &groups, device)?),
                false => None,
            },
            segments,
            groups,
            tokens: covered,
            queries,
        })
    }
}
