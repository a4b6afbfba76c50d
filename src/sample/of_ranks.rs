//! A file of samples that ranks draw together.

use std::fs::File;
use std::path::Path;

use super::task::write;
use super::{Existing, SampleWriter};
use crate::data::Prompt;
use crate::error::{Error, Result};
use crate::io::durable::{remove_file, write_file};
use crate::io::output::Output;
use crate::ranks::{Ranks, share};
use crate::session::{Observer, StopCondition};

/// As [`write`], where ranks share the prompts: each draws its part into a file of its own, which a call
/// after an interruption goes on with, and gets the parts of the others.
pub(super) fn of_ranks(
    ranks: &Ranks,
    writer: &SampleWriter,
    prompts: &[Prompt],
    path: &Path,
    observe: Observer,
) -> Result<()> {
    let complete = share(
        ranks,
        "the cache of samples",
        has_all(writer, prompts, path),
    )?;
    if complete.iter().all(|&complete| complete) {
        return Ok(());
    }
    let (rank, size) = (ranks.rank(), ranks.size());
    let own = prompts.iter().skip(rank).step_by(size);
    let own: Vec<Prompt> = own.cloned().collect();
    let part = path.with_extension(format!("{rank}-of-{size}.jsonl"));
    let (out, until) = (Output::File(part.clone()), StopCondition::default());
    if !own.is_empty() {
        write(writer, &own, &out, Existing::Cache, &until, observe)?;
    }
    let lines = match own.is_empty() {
        true => String::new(),
        false => std::fs::read_to_string(&part).map_err(|error| Error::io(&part, &error))?,
    };
    // One may take much longer than another.
    let all = share(&ranks.without_limit(), "the samples", lines)?;
    let mut all: Vec<_> = all
        .iter()
        .map(|lines| lines.split_inclusive('\n'))
        .collect();
    let mut text = String::new();
    for prompt in 0..prompts.len() {
        text.extend(
            all[prompt % size]
                .by_ref()
                .take(writer.sampler.config.num_samples),
        );
    }
    // On a file system that they share, all write the same.
    write_file(path, text.as_bytes())?;
    remove_file(&part)
}

/// Whether a file has all responses to these prompts.
fn has_all(writer: &SampleWriter, prompts: &[Prompt], path: &Path) -> bool {
    let found = File::open(path).map(|file| writer.found(prompts, &file, path));
    let all = prompts.len() * writer.sampler.config.num_samples;
    matches!(found, Ok(Ok(found)) if found.rows == all)
}
