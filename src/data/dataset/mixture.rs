//! Examples that are in a dataset more than once, or not at all.
//!
//! Hides in which order the copies stand.
//!
//! *Why*: a copy is another entry of the index with the same tokens, made when all rows have been read. So
//! a row is tokenised, scored and given its mismatched answer once, and a file of weight 3 reads as if it
//! were three times in the list: whole passes, not each row three times on end.

use crate::data::rows::{Files, PartCount, Weighted};
use sha2::{Digest, Sha256};

/// The rows of weighted files, while they are read.
pub(super) struct Mixture {
    parts: Vec<PartCount>,
    // Rows that are not left out, by number.
    rows: Vec<Drawn>,
    // Of every example.
    examples: Vec<Drawn>,
}

#[derive(Clone, Copy)]
struct Drawn {
    row: usize,
    part: u32,
    times: u32,
}

impl Mixture {
    /// `None` where every row is there once.
    pub fn new(files: &Files) -> Option<Self> {
        let part = |(path, weight)| PartCount {
            path,
            weight,
            ..PartCount::default()
        };
        files.is_weighted().then(|| Self {
            parts: files.weights().map(part).collect(),
            rows: Vec::new(),
            examples: Vec::new(),
        })
    }

    /// Counts a row that was read.
    pub fn count(&mut self, weighted: &Weighted) {
        let part = &mut self.parts[weighted.part];
        part.rows += 1;
        match weighted.times {
            0 => part.left_out += 1,
            times => self.rows.push(Drawn {
                row: weighted.number,
                part: weighted.part as u32,
                times: times as u32,
            }),
        }
    }

    /// Whether the weights left out every row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Counts an example that was made of a row.
    pub fn keep(&mut self, row: usize) {
        if let Ok(at) = self.rows.binary_search_by_key(&row, |drawn| drawn.row) {
            let drawn = self.rows[at];
            self.examples.push(drawn);
            let part = &mut self.parts[drawn.part as usize];
            part.kept += 1;
            part.examples += drawn.times as usize;
        }
    }

    /// The examples with their copies, by the place of each among those that were kept. Their places
    /// are fed to `hasher`.
    pub fn order(&self, hasher: &mut Sha256) -> Vec<usize> {
        let mut order = Vec::new();
        let mut before = 0;
        for part in self.examples.chunk_by(|a, b| a.part == b.part) {
            let most = part.iter().map(|drawn| drawn.times).max().unwrap_or(0);
            for pass in 0..most {
                let there = part
                    .iter()
                    .enumerate()
                    .filter(|(_, drawn)| drawn.times > pass);
                order.extend(there.map(|(at, _)| before + at));
            }
            before += part.len();
        }
        for place in &order {
            hasher.update((*place as u64).to_le_bytes());
        }
        order
    }

    /// What became of the rows of each part.
    pub fn into_counts(self) -> Vec<PartCount> {
        self.parts
    }
}
