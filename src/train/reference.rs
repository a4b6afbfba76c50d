//! The reference's log-probs of a run's rows.

use super::files::check_apart;
use crate::config::Config;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::score::{Reference, ReferencePass};
use crate::session::{Event, Observer, Session, check_length};

/// The reference's log-probs where it is not the policy itself.
pub(super) fn separate(
    config: &Config,
    session: &Session,
    datasets: &[Dataset],
    observe: Observer,
) -> Result<Option<Reference>> {
    let folder = session.reference(observe)?;
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
                    .hint("leave one of the two keys out, or score again"),
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
        folder.arch.max_positions,
        &folder.path,
    )
    .map_err(|error| error.at("model.reference"))?;
    let load = || Ok(session.compute.load(folder)?.0);
    pass.cached(folder.content_hash()?, datasets, observe, load)
        .map(Some)
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
    pass.cached(hash.to_owned(), datasets, observe, || Ok(model))
}
