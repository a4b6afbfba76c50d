//! Whether the disk has room for what a run will write, before anything costly is done.

use super::resume::Origin;
use crate::checkpoint::{SMALL_FILES, removable_bytes};
use crate::config::{Config, SavedBytes};
use crate::error::{Error, Result};
use crate::io::durable::free_bytes;
use crate::model::parameters::Layout;
use crate::session::{Event, Observer};

/// Refuses a run that has no room for its final model and, where it saves checkpoints, for one of
/// them. Where it saves none but has no room for the checkpoint of an early stop, it says so.
pub(super) fn check_room(
    config: &Config,
    layout: &Layout,
    gpu: bool,
    origin: &Origin,
    observe: Observer,
) -> Result<()> {
    let folder = &config.run.output_dir;
    let Some(free) = free_bytes(folder) else {
        return Ok(());
    };
    let step = origin.checkpoint.as_ref().map(|(_, state)| state.step);
    let free = free.saturating_add(removable_bytes(folder, step));
    let warning = judge(config, config.saved_bytes(layout, gpu), free)?;
    if let Some(text) = warning {
        observe(Event::Warning(&text));
    }
    Ok(())
}

/// As [`check_room`], with so many `free` bytes; a warning, if there is cause for one.
fn judge(config: &Config, saved: SavedBytes, free: u64) -> Result<Option<String>> {
    let run = &config.run;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let model = ("a final model", saved.model + SMALL_FILES);
    let checkpoint = ("a checkpoint", saved.checkpoint + SMALL_FILES);
    let written: Vec<_> = [
        run.save_steps.map(|_| checkpoint),
        run.save_model.then_some(model),
    ]
    .into_iter()
    .flatten()
    .collect();
    let place = run.output_dir.display();
    let left = format!("and the disk has {:.2} GiB left", gib(free));
    if written.iter().map(|(_, bytes)| bytes).sum::<u64>() > free {
        let sizes = written
            .iter()
            .map(|(what, bytes)| format!("{what} of {:.2} GiB", gib(*bytes)));
        let sizes = sizes.collect::<Vec<_>>().join(" and ");
        return Err(Error::input(format!("the run writes {sizes}, {left}"))
            .at(place)
            .hint(
                "choose a run.output_dir with more room; model.save_dtype = \"bf16\" takes less, and \
                 run.save_model = false writes no final model",
            ));
    }
    let (_, bytes) = checkpoint;
    Ok((run.save_steps.is_none() && bytes > free).then(|| {
        format!(
            "{place}: if the run is stopped early it cannot be saved: a checkpoint takes {:.2} GiB, \
             {left}",
            gib(bytes)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    /// Of Pythia-2.8B: in bf16 with AdamW's moments and weights in f32.
    const SAVED: SavedBytes = SavedBytes {
        model: 6 * GB,
        checkpoint: 39 * GB,
    };

    fn judged(run: &str, free: u64) -> std::result::Result<Option<String>, String> {
        let config = format!(
            "[model]\nmodel_name_or_path = \"m\"\n[data]\nformat = \"hh\"\ntrain = \"rows\"\n\
             [loss.dpo]\n[run]\noutput_dir = \"out\"\n{run}"
        );
        let config = Config::parse(&config, &[]).unwrap();
        judge(&config, SAVED, free).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_without_checkpoints_needs_room_for_its_model_only() {
        assert_eq!(judged("", 40 * GB), Ok(None));
        let warning = judged("", 7 * GB).unwrap().unwrap();
        let says =
            "out: if the run is stopped early it cannot be saved: a checkpoint takes 36.35 GiB";
        assert!(warning.starts_with(says), "{warning}");
        let refusal = judged("", 5 * GB).unwrap_err();
        let says = "out: the run writes a final model of 5.62 GiB, and the disk has 4.66 GiB left";
        assert!(refusal.starts_with(says), "{refusal}");
    }

    #[test]
    fn a_run_with_checkpoints_needs_room_for_one_and_its_model() {
        assert_eq!(judged("save_steps = 5", 46 * GB), Ok(None));
        let refusal = judged("save_steps = 5", 44 * GB).unwrap_err();
        let says =
            "out: the run writes a checkpoint of 36.35 GiB and a final model of 5.62 GiB, and";
        assert!(refusal.starts_with(says), "{refusal}");
        let alone = "save_steps = 5\nsave_model = false";
        assert_eq!(judged(alone, 44 * GB), Ok(None));
    }

    #[test]
    fn a_run_that_writes_no_model_needs_no_room() {
        assert!(judged("save_model = false", 0).unwrap().is_some());
        assert_eq!(judged("save_model = false", 40 * GB), Ok(None));
    }
}
