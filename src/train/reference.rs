//! The reference's log-probs of a run's rows.

use super::output::check_apart;
use crate::config::Config;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::score::{Reference, ReferencePass};
use crate::session::{Event, Observer, Session, check_length};

/// The reference's log-probs where it is not the policy itself. For a run that goes on its content hash
/// is `known`, so that log-probs in the cache do without its directory.
pub(super) fn separate(
    config: &Config,
    session: &Session,
    datasets: &[Dataset],
    known: Option<&str>,
    observe: Observer,
) -> Result<Option<Reference>> {
    let folder = match (session.reference(observe), known) {
        (Ok(folder), _) => folder,
        (Err(error), Some(hash)) => {
            observe(Event::Warning(&format!("{error}; continuing without it")));
            let pass = ReferencePass::of_run(config, session);
            return match &config.data.reference_log_probs {
                Some(path) => {
                    observe(Event::ReferenceFound(path));
                    pass.from_file(path, datasets)
                }
                None => pass.cached(hash.to_owned(), datasets, observe, || {
                    Err::<Decoder, _>(error)
                }),
            }
            .map(Some);
        }
        (Err(error), None) => return Err(error),
    };
    if let Some(folder) = folder {
        check_apart(&config.run.output_dir, &folder.path)?;
    }
    let pass = ReferencePass::of_run(config, session);
    if let Some(path) = &config.data.reference_log_probs {
        let reference = pass.from_file(path, datasets)?;
        observe(Event::ReferenceFound(path));
        if let (Some(folder), Some(hash)) = (folder, &reference.hash)
            && folder.content_hash()? != *hash
        {
            return Err(
                Error::input("the log-probs are of another model than model.reference")
                    .at(path.display())
                    .hint("leave one of the two keys out, or score again: expo score with this config"),
            );
        }
        return Ok(Some(reference));
    }
    let Some(folder) = folder else {
        return Ok(None);
    };
    session.check_same_tokens(folder)?;
    check_length(
        config.data.rows.length.max_length,
        folder.arch.longest_sequence(),
        &folder.path,
    )
    .map_err(|error| error.at("model.reference"))?;
    let hash = folder.content_hash()?;
    let load = || session.compute.load_known(folder, Some(&hash));
    pass.cached(hash.clone(), datasets, observe, load).map(Some)
}

/// The log-probs of the policy, before its first update, as its own reference; `hash` is its content
/// hash.
pub(super) fn of_policy(
    config: &Config,
    session: &Session,
    model: &Decoder,
    hash: &str,
    datasets: &[Dataset],
    observe: Observer,
) -> Result<Reference> {
    let pass = ReferencePass::of_run(config, session);
    pass.cached(hash.to_owned(), datasets, observe, || {
        session.base().map(|_| model)
    })
}
