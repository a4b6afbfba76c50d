//! A file of samples that ranks draw together.

use std::fs::File;
use std::path::Path;

use super::task::write;
use super::{Existing, SampleWriter};
use crate::data::Prompt;
use crate::error::{Error, Result};
use crate::io::durable::{remove_file, write_file};
use crate::io::output::Output;
use crate::ranks::{Ranks, share, share_results};
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
    let patient = ranks.without_limit();
    let kept = match ranks.is_first() && has_all(writer, prompts, path) {
        true => Some(read(path)?),
        false => None,
    };
    // Of several ranks the first one's counts, whose cache others may not see.
    let kept = share(&patient, "the cache of samples", kept)?;
    if let Some(text) = kept.into_iter().next().flatten() {
        return match has_all(writer, prompts, path) {
            true => Ok(()),
            false => write_file(path, text.as_bytes()),
        };
    }
    let (rank, size) = (ranks.rank(), ranks.size());
    let own = prompts.iter().skip(rank).step_by(size);
    let own: Vec<Prompt> = own.cloned().collect();
    let each = writer.sampler.config.num_samples;
    let part = path.with_extension(format!("{rank}-of-{size}.jsonl"));
    let lines = own_lines(writer, &own, &part, observe).or_else(|error| {
        // Another run that draws the same may have finished its file and removed the part.
        let text = read(path).map_err(|_| error)?;
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let of_prompts = lines.chunks(each).skip(rank).step_by(size);
        Ok(of_prompts.flatten().copied().collect())
    });
    let all = share_results(&patient, "the samples", lines, 0)?;
    let mut all: Vec<_> = all
        .iter()
        .map(|lines| lines.split_inclusive('\n'))
        .collect();
    let mut text = String::new();
    for prompt in 0..prompts.len() {
        text.extend(all[prompt % size].by_ref().take(each));
    }
    // On a file system that they share, all write the same.
    write_file(path, text.as_bytes())?;
    remove_file(&part)
}

/// Draws what the part of a rank does not have yet; all of its lines.
fn own_lines(
    writer: &SampleWriter,
    prompts: &[Prompt],
    part: &Path,
    observe: Observer,
) -> Result<String> {
    if prompts.is_empty() {
        return Ok(String::new());
    }
    let (out, until) = (Output::File(part.to_owned()), StopCondition::default());
    write(writer, prompts, &out, Existing::Cache, &until, observe)?;
    read(part)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))
}

/// Whether a file has all responses to these prompts.
fn has_all(writer: &SampleWriter, prompts: &[Prompt], path: &Path) -> bool {
    let found = File::open(path).map(|file| writer.found(prompts, &file, path));
    let all = prompts.len() * writer.sampler.config.num_samples;
    matches!(found, Ok(Ok(found)) if found.rows == all)
}
