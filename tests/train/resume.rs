//! Runs that are interrupted and gone on with, against the run that was not, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use expo::config::Config;
use expo::error::Error;
use expo::session::{Event, Reason, Stopped};
use expo::train::{End, Opened, Resume, Run, Summary, verify};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{fixture, json};

/// What a checkpoint must not forget, in one config each.
const RUNS: [(&str, &str); 20] = [
    (
        "dpo",
        "[loss.dpo]\n[optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3\nweight_decay = 0.1",
    ),
    (
        "dpo",
        "[loss.dpo]\n[optimizer]\noptim = \"rmsprop\"\nlearning_rate = 1e-3",
    ),
    (
        "kto",
        "[loss.kto]\n[optimizer]\noptim = \"adam\"\nlearning_rate = 1e-3",
    ),
    (
        "kto",
        "[loss.kto]\n[optimizer]\noptim = \"rmsprop\"\nlearning_rate = 1e-3",
    ),
    (
        "cexpo",
        "[loss.cexpo]\n[optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3",
    ),
    (
        "cexpo",
        "[loss.cexpo]\n[optimizer]\noptim = \"rmsprop\"\nlearning_rate = 1e-3",
    ),
    (
        "dpo",
        "[loss.dpo]\n[optimizer]\noptim = \"adamw_8bit\"\nlearning_rate = 1e-3\nweight_decay = 0.1",
    ),
    (
        "dpo",
        "[loss.dpo]\n[optimizer]\noptim = \"lion\"\nlearning_rate = 1e-4",
    ),
    (
        "dpo",
        "[loss.dpo]\n[optimizer]\noptim = \"muon\"\nlearning_rate = 1e-3\nweight_decay = 0.1",
    ),
    // Weights that the model's own files do not hold.
    ("bf16", "[loss.dpo]\n[optimizer]\nlearning_rate = 1e-3"),
    // A reference that moves, at a step that is no checkpoint's multiple.
    (
        "moving",
        "[loss.dpo]\n[optimizer]\nlearning_rate = 1e-3\n[reference]\nsteps = 2",
    ),
    // Moments of what is trained alone, and beside it frozen weights that the files do not hold.
    ("frozen", "[loss.dpo]\n[optimizer]\nlearning_rate = 1e-3"),
    (
        "frozen moving",
        "[loss.dpo]\n[optimizer]\nlearning_rate = 1e-3\n[reference]\nsteps = 2",
    ),
    // Draws of the policy, one round a step.
    (
        "on policy",
        "[loss.cexpo]\nunsupervised = \"reverse_kl\"\n[sample]\nmax_new_tokens = 4\nnum_samples = 2\n[optimizer]\nlearning_rate = 1e-3",
    ),
    // Parts of a batch, and no reference.
    ("parts", "[loss.sft]\n[optimizer]\nlearning_rate = 1e-3"),
    (
        "unlabelled",
        "[loss.cexpo]\n[optimizer]\nlearning_rate = 1e-3",
    ),
    // An adapter alone, with what it trains whole.
    (
        "dpo",
        "[adapter]\nr = 3\nmodules_to_save = [\"norm\"]\n[loss.dpo]\n[optimizer]\nlearning_rate = 1e-2",
    ),
    // One whose files do not hold its values, with magnitudes.
    (
        "bf16",
        "[adapter]\nr = 2\nuse_dora = true\n[loss.dpo]\n[optimizer]\nlearning_rate = 1e-2",
    ),
    (
        "moving",
        "[adapter]\nr = 2\ntarget_modules = \"attention\"\n[loss.dpo]\n[optimizer]\nlearning_rate = 1e-2\n[reference]\nsteps = 2",
    ),
    (
        "on policy",
        "[adapter]\nr = 2\n[loss.cexpo]\nunsupervised = \"reverse_kl\"\n[sample]\nmax_new_tokens = 4\nnum_samples = 2\n[optimizer]\nlearning_rate = 1e-2",
    ),
];

const STEPS: u64 = 7;

/// A run of `STEPS` steps, of which every one is saved, every second evaluated, every third logged;
/// an epoch has four of them, the last of fewer rows.
fn text(name: &str, rest: &str, folder: &Path) -> String {
    let (model, pairs, samples) = (
        fixture("llama"),
        fixture("pairs.jsonl"),
        fixture("samples.jsonl"),
    );
    let data = match name {
        "cexpo" => format!("samples = {samples:?}\n"),
        "unlabelled" => format!(
            "samples = {samples:?}\nunlabelled = \"{}[12:]\"\nunlabelled_ratio = 0.5\n",
            pairs.display()
        ),
        _ => String::new(),
    };
    let (more_model, batch) = match name {
        "bf16" => ("dtype = \"bf16\"\nsave_dtype = \"bf16\"\n", ""),
        "frozen" => (
            "trainable = [\"*\", \"!*.mlp.*\"]\nsave_dtype = \"bf16\"\n",
            "micro_batch_tokens = 128\n",
        ),
        "frozen moving" => (
            "trainable = [\"*norm*\", \"*.1.*\"]\n",
            "micro_batch_tokens = 128\n",
        ),
        "parts" => ("", "gradient_accumulation_steps = 2\n"),
        _ => ("", "micro_batch_tokens = 128\n"),
    };
    format!(
        "[model]\nmodel_name_or_path = {model:?}\n{more_model}\
         [data]\nformat = \"pairs\"\ntrain = \"{pairs}[:11]\"\neval = \"{pairs}[20:]\"\n\
         max_length = 48\nmax_prompt_length = 24\n{data}\
         [batch]\nbatch_size = 3\n{batch}\
         [run]\noutput_dir = {out:?}\ncache_dir = {cache:?}\nseed = 5\n\
         max_steps = {STEPS}\nsave_steps = 1\neval_steps = 2\nlogging_steps = 3\n\
         eval_prompts = 2\neval_max_new_tokens = 5\neval_margins = 2\n\
         report_to = [\"tensorboard\"]\n{rest}\n",
        pairs = pairs.display(),
        out = folder.join("run"),
        cache = folder.join("cache"),
    )
}

fn config(name: &str, rest: &str, folder: &Path, overrides: &[&str]) -> Config {
    let text = text(name, rest, folder);
    let overrides: Vec<String> = overrides.iter().map(|&key| key.to_owned()).collect();
    Config::parse(&text, &overrides).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs it, up to the step `stop` if that is given.
fn run(config: Config, resume: &Resume, allow: &[&str], stop: Option<u64>) -> Result<End, Error> {
    let allow: Vec<String> = allow.iter().map(|&key| key.to_owned()).collect();
    let Opened::Run(run) = Run::open_with(config, resume, &allow, &mut |_| {})? else {
        panic!("there is nothing left to do");
    };
    let signal = run.until.signal.clone();
    run.train(&mut |event| match event {
        Event::Step { step, .. } if Some(step) == stop => signal.store(15, Relaxed),
        _ => {}
    })
}

fn finish(config: Config, resume: &Resume) -> Summary {
    match run(config, resume, &[], None) {
        Ok(End::Finished(summary)) => *summary,
        other => panic!("{other:?}"),
    }
}

fn stop(config: Config, resume: &Resume, step: u64) -> Stopped {
    match run(config, resume, &[], Some(step)) {
        Ok(End::Stopped(stopped)) => stopped,
        other => panic!("{other:?}"),
    }
}

/// Every file below a folder that is the same whenever and wherever a run is made.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                // Event files have times.
                true if name == "tensorboard" => {}
                true => folders.push(path),
                false
                    if ["timings.jsonl", "run.lock", "summary.json", "config.toml"]
                        .contains(&name) => {}
                false => {
                    let relative = path.strip_prefix(folder).unwrap().to_owned();
                    all.insert(relative, fs::read(path).unwrap());
                }
            }
        }
    }
    all
}

fn assert_same(got: &Path, want: &Path, what: &str) {
    let (got, want) = (files(got), files(want));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&want), "{what}");
    for (name, bytes) in &want {
        assert!(got[name] == *bytes, "{what}: {} differs", name.display());
    }
}

#[test]
fn a_run_that_stops_at_any_step_ends_like_one_that_does_not() {
    for (name, rest) in RUNS {
        let whole = tempfile::tempdir().unwrap();
        finish(config(name, rest, whole.path(), &[]), &Resume::Never);
        for step in 0..STEPS {
            let folder = tempfile::tempdir().unwrap();
            let other = || config(name, rest, folder.path(), &[]);
            // Before the first step nothing asks for the end but the time.
            if step > 0 {
                let stopped = stop(other(), &Resume::Auto, step);
                assert_eq!((stopped.reason, stopped.step), (Reason::Signal(15), step));
            }
            finish(other(), &Resume::Auto);
            let what = format!("{name}, {rest}, stopped after {step}");
            assert_same(&folder.path().join("run"), &whole.path().join("run"), &what);
        }
    }
}

#[test]
fn a_checkpoint_is_gone_on_from_in_another_folder_and_an_older_one_in_its_own() {
    for (name, rest) in [RUNS[0], RUNS[6], RUNS[7]] {
        let whole = tempfile::tempdir().unwrap();
        finish(config(name, rest, whole.path(), &[]), &Resume::Never);
        let run = whole.path().join("run");
        let from = Resume::From(run.join("checkpoint-3"));
        let folder = tempfile::tempdir().unwrap();
        let summary = finish(config(name, rest, folder.path(), &[]), &from);
        assert_eq!(summary.resumed_from, Some(3));
        let branch = folder.path().join("run");
        for step in 4..=STEPS {
            let name = format!("checkpoint-{step}");
            assert_same(&branch.join(&name), &run.join(&name), &name);
        }
        for name in [
            "metrics.jsonl",
            "generations.jsonl",
            "margins.json",
            "model.safetensors",
            "run.json",
        ] {
            assert_eq!(
                fs::read(branch.join(name)).unwrap(),
                fs::read(run.join(name)).unwrap()
            );
        }
        let before = files(&run);
        finish(config(name, rest, whole.path(), &[]), &from);
        assert!(files(&run) == before, "{name}");
    }
}

/// A run that was stopped after the step 5, in a folder of its own.
fn stopped() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    stop(
        config("dpo", RUNS[0].1, folder.path(), &[]),
        &Resume::Never,
        5,
    );
    let run = folder.path().join("run");
    (folder, run)
}

fn again(folder: &TempDir, overrides: &[&str]) -> Config {
    config("dpo", RUNS[0].1, folder.path(), overrides)
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken() {
    let whole = tempfile::tempdir().unwrap();
    finish(again(&whole, &[]), &Resume::Never);
    for name in [
        "model.safetensors",
        "training_state.safetensors",
        "training_state.json",
        "MANIFEST.json",
    ] {
        let (folder, run) = stopped();
        damage(&run.join("checkpoint-5").join(name));
        fs::remove_file(run.join("checkpoint-4/config.json")).unwrap();
        let found = verify(&run).unwrap();
        assert_eq!(
            found.iter().filter(|one| one.outcome.is_err()).count(),
            2,
            "{found:?}"
        );
        let mut warnings = Vec::new();
        let opened = Run::open_with(again(&folder, &[]), &Resume::Auto, &[], &mut |event| {
            if let Event::Warning(what) = event {
                warnings.push(what.to_owned());
            }
        });
        let Ok(Opened::Run(opened)) = opened else {
            panic!("not opened")
        };
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("checkpoint-5") && warnings[0].contains("set aside as"));
        let End::Finished(summary) = opened.train(&mut |_| {}).unwrap() else {
            panic!("stopped")
        };
        assert_eq!(summary.resumed_from, Some(3));
        for aside in ["damaged-checkpoint-5-1", "damaged-checkpoint-4-1"] {
            fs::remove_dir_all(run.join(aside)).unwrap();
        }
        assert_same(&run, &whole.path().join("run"), name);
    }
}

#[test]
fn without_a_whole_checkpoint_nothing_begins_again_by_itself() {
    let (folder, run) = stopped();
    for step in 1..=5 {
        damage(&run.join(format!("checkpoint-{step}/model.safetensors")));
    }
    for _ in 0..2 {
        let error = run_error(again(&folder, &[]), &Resume::Auto, &[]);
        assert!(error.contains("none of them is valid"), "{error}");
    }
    let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    assert!(!metrics.is_empty());
    finish(again(&folder, &["run.overwrite=true"]), &Resume::Never);
    assert!(!run.join("damaged-checkpoint-5-1").exists());
}

fn run_error(config: Config, resume: &Resume, allow: &[&str]) -> String {
    run(config, resume, allow, None).unwrap_err().to_string()
}

#[test]
fn what_has_changed_is_named_and_let_through_only_by_name() {
    let (folder, run_folder) = stopped();
    let changed = || {
        again(
            &folder,
            &["optimizer.learning_rate=1e-4", "run.max_steps=8"],
        )
    };
    let error = run_error(changed(), &Resume::Auto, &["run.max_steps"]);
    assert!(
        error.contains(
            "holds an interrupted run of another config: optimizer.learning_rate: 0.001 -> 0.0001; \
             choose another run.output_dir, replace the run, or resume it with these changes \
             (set run.overwrite=true, allow_change optimizer.learning_rate)"
        ),
        "{error}"
    );
    let error = run_error(again(&folder, &["data.max_length=40"]), &Resume::Auto, &[]);
    assert!(
        error.contains("the rows differ (data.train)")
            && error.contains("data.max_length: 48 -> 40"),
        "{error}"
    );
    let error = run_error(changed(), &Resume::Auto, &["run.max_step"]);
    assert!(error.contains("did you mean `run.max_steps`?"), "{error}");
    let keys = ["run.max_steps", "optimizer.learning_rate"];
    let End::Finished(summary) = run(changed(), &Resume::Auto, &keys, None).unwrap() else {
        panic!("stopped");
    };
    assert_eq!((summary.steps, summary.resumed_from), (8, Some(5)));
    let record = json(&run_folder.join("run.json"));
    assert_eq!(record["changes"][0]["step"], 5);
    assert_eq!(record["frozen"]["run.max_steps"], 8);
    // What changes no weight is free to change.
    let free = ["run.save_steps=3", "run.save_total_limit=2"];
    let (folder, _) = stopped();
    finish(again(&folder, &free), &Resume::Auto);
}

#[test]
fn a_finished_run_is_left_alone_and_can_be_made_longer() {
    let folder = tempfile::tempdir().unwrap();
    finish(again(&folder, &[]), &Resume::Auto);
    let run_folder = folder.path().join("run");
    let before = files(&run_folder);
    let opened = Run::open_with(again(&folder, &[]), &Resume::Auto, &[], &mut |_| {}).unwrap();
    let Opened::Finished(summary) = opened else {
        panic!("there is nothing to do")
    };
    assert_eq!(summary.steps, STEPS);
    assert!(files(&run_folder) == before);
    let error = run_error(again(&folder, &[]), &Resume::Never, &[]);
    assert!(error.contains("holds a run already"), "{error}");
    let error = run_error(again(&folder, &["run.overwrite=true"]), &Resume::Auto, &[]);
    assert!(error.contains("leave one of the two out"), "{error}");
    let longer = again(&folder, &["run.max_steps=9"]);
    let End::Finished(summary) = run(longer, &Resume::Auto, &["run.max_steps"], None).unwrap()
    else {
        panic!("stopped");
    };
    assert_eq!((summary.steps, summary.resumed_from), (9, Some(STEPS)));
}

#[test]
fn a_change_that_no_step_is_left_for_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    finish(again(&folder, &[]), &Resume::Auto);
    let run_folder = folder.path().join("run");
    let before = (
        files(&run_folder),
        fs::read(run_folder.join("config.toml")).unwrap(),
    );
    let changed = || again(&folder, &["optimizer.learning_rate=1e-4"]);
    let keys = ["optimizer.learning_rate"];
    let last = Resume::From(run_folder.join("checkpoint-7"));
    for resume in [&Resume::Auto, &last] {
        let error = run_error(changed(), resume, &keys);
        assert!(
            error.contains(
                "the run has 7 steps and none is left for the change: optimizer.learning_rate: \
                 0.001 -> 0.0001; "
            ),
            "{error}"
        );
        let options = format!(
            "(set run.overwrite=true, resume {}/checkpoint-6 allow_change optimizer.learning_rate)",
            run_folder.display()
        );
        assert!(error.ends_with(&options), "{error}");
    }
    let after = (
        files(&run_folder),
        fs::read(run_folder.join("config.toml")).unwrap(),
    );
    assert!(after == before);
    let from = Resume::From(run_folder.join("checkpoint-6"));
    run(changed(), &from, &keys, None).unwrap();
}

#[test]
fn another_loss_is_allowed_by_its_name_alone() {
    let (folder, run_folder) = stopped();
    let changed = || again(&folder, &["loss=simpo"]);
    for resume in [Resume::Auto, Resume::From(run_folder.join("checkpoint-5"))] {
        let error = run_error(changed(), &resume, &[]);
        assert!(error.contains("config: loss: dpo -> simpo; "), "{error}");
        assert!(error.ends_with("allow_change loss)"), "{error}");
    }
    run(changed(), &Resume::Auto, &["loss"], Some(6)).unwrap();
    // And back, with a reference again.
    let from = Resume::From(run_folder.join("checkpoint-6"));
    run(again(&folder, &[]), &from, &["loss"], None).unwrap();
}

#[test]
fn only_what_works_is_offered_and_a_key_that_is_not_compared_is_told_which_are() {
    let (folder, run_folder) = stopped();
    let error = run_error(again(&folder, &["run.max_steps=4"]), &Resume::Auto, &[]);
    let options = format!(
        "(set run.overwrite=true, resume {}/checkpoint-4 allow_change run.max_steps)",
        run_folder.display()
    );
    assert!(error.ends_with(&options), "{error}");
    let changed = again(&folder, &["run.max_steps=8"]);
    let error = run_error(changed, &Resume::Auto, &["all"]);
    assert!(
        error.contains("`all` is nothing that is compared; changed: run.max_steps; or name whole"),
        "{error}"
    );
    assert!(error.len() < 250, "{error}");
    let free = run_error(again(&folder, &[]), &Resume::Auto, &["run.save_steps"]);
    assert!(
        free.ends_with("`run.save_steps` may change by itself; leave it out"),
        "{free}"
    );
}

#[test]
fn a_finished_run_whose_model_is_not_whole_is_told_how_to_get_it_back() {
    let folder = tempfile::tempdir().unwrap();
    finish(again(&folder, &[]), &Resume::Auto);
    let run_folder = folder.path().join("run");
    let model = run_folder.join("model.safetensors");
    let whole = fs::read(&model).unwrap();
    let damages: [&dyn Fn(); 2] = [&|| fs::write(&model, &whole[1..]).unwrap(), &|| {
        fs::remove_file(&model).unwrap();
    }];
    for damage in damages {
        damage();
        let error = run_error(again(&folder, &[]), &Resume::Auto, &[]);
        assert!(error.contains("model.safetensors: "), "{error}");
        assert!(
            error.contains("its final model is damaged; expo verify"),
            "{error}"
        );
        let options = format!(
            "(resume {}/checkpoint-7, set run.overwrite=true)",
            run_folder.display()
        );
        assert!(error.ends_with(&options), "{error}");
        finish(
            again(&folder, &[]),
            &Resume::From(run_folder.join("checkpoint-7")),
        );
        assert!(fs::read(&model).unwrap() == whole);
    }
}

#[test]
fn a_finished_run_needs_no_checkpoints_until_it_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    finish(again(&folder, &[]), &Resume::Auto);
    for step in 1..=STEPS {
        fs::remove_dir_all(folder.path().join(format!("run/checkpoint-{step}"))).unwrap();
    }
    let opened = Run::open_with(again(&folder, &[]), &Resume::Auto, &[], &mut |_| {}).unwrap();
    assert!(matches!(opened, Opened::Finished(_)));
    let longer = again(&folder, &["run.max_steps=9"]);
    let error = run_error(longer, &Resume::Auto, &["run.max_steps"]);
    assert!(
        error.contains("has no checkpoint to resume from"),
        "{error}"
    );
    assert!(folder.path().join("run/model.safetensors").is_file());
}

#[test]
fn fewer_steps_than_were_made_are_refused_and_as_many_end_the_run_as_it_should() {
    let (folder, _) = stopped();
    let fewer = again(&folder, &["run.max_steps=4"]);
    let error = run_error(fewer, &Resume::Auto, &["run.max_steps"]);
    assert!(
        error.contains("is after step 5, and the run has 4"),
        "{error}"
    );
    // Step 5 is neither logged nor evaluated by itself.
    let as_many = again(&folder, &["run.max_steps=5"]);
    let End::Finished(summary) = run(as_many, &Resume::Auto, &["run.max_steps"], None).unwrap()
    else {
        panic!("stopped");
    };
    assert_eq!(summary.train.1["step"], 5);
    assert_eq!(summary.eval.unwrap().1["step"], 5);
}

#[test]
fn a_branch_is_gone_on_with_by_itself_and_going_back_undoes_changes() {
    let (folder, run_folder) = stopped();
    let other = tempfile::tempdir().unwrap();
    let from = Resume::From(run_folder.join("checkpoint-3"));
    // Ended before its first checkpoint of its own.
    let Opened::Run(mut branch) =
        Run::open_with(again(&other, &[]), &from, &[], &mut |_| {}).unwrap()
    else {
        panic!("nothing to do");
    };
    branch.until.time = Some(Duration::ZERO);
    let End::Stopped(ended) = branch.train(&mut |_| {}).unwrap() else {
        panic!("finished")
    };
    assert!(ended.checkpoint.ends_with("checkpoint-3"));
    let summary = finish(again(&other, &[]), &Resume::Auto);
    assert_eq!(summary.resumed_from, Some(3));
    let lower = || again(&folder, &["optimizer.learning_rate=1e-4"]);
    let keys = ["optimizer.learning_rate"];
    run(lower(), &Resume::Auto, &keys, Some(6)).unwrap();
    let changes = || {
        json(&run_folder.join("run.json"))["changes"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(changes(), 1);
    let from = Resume::From(run_folder.join("checkpoint-4"));
    let error = run_error(lower(), &from, &[]);
    assert!(
        error.contains("optimizer.learning_rate: 0.001 -> 0.0001"),
        "{error}"
    );
    finish(again(&folder, &[]), &from);
    assert_eq!(changes(), 0);
    for name in ["metrics.jsonl", "model.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join("run").join(name)).unwrap();
        assert!(read(folder.path()) == read(other.path()), "{name}");
    }
    fs::rename(
        run_folder.join("checkpoint-5"),
        run_folder.join("checkpoint-9"),
    )
    .unwrap();
    let error = run_error(
        again(&folder, &[]),
        &Resume::From(run_folder.join("checkpoint-9")),
        &[],
    );
    assert!(error.contains("is the checkpoint of step 5"), "{error}");
}

#[test]
fn a_folder_that_is_no_checkpoint_is_refused() {
    let (folder, run_folder) = stopped();
    for path in [
        run_folder.clone(),
        run_folder.join("checkpoint-9"),
        PathBuf::from("checkpoint-2"),
        PathBuf::from("latest"),
    ] {
        let error = run_error(again(&folder, &[]), &Resume::From(path), &[]);
        assert!(
            error.starts_with("resume: ") && error.contains("is no checkpoint; there are "),
            "{error}"
        );
        assert!(error.contains("run/checkpoint-5, "), "{error}");
        assert!(
            error.ends_with(" and 1 older; auto takes the latest"),
            "{error}"
        );
    }
    let other = tempfile::tempdir().unwrap();
    finish(again(&other, &["run.max_steps=1"]), &Resume::Never);
    let from = Resume::From(run_folder.join("checkpoint-2"));
    let error = run_error(again(&other, &[]), &from, &[]);
    assert!(error.contains("holds a run already"), "{error}");
    fs::remove_file(run_folder.join("run.json")).unwrap();
    let error = run_error(again(&folder, &[]), &Resume::Auto, &[]);
    assert!(
        error.contains("holds checkpoints, and no run.json"),
        "{error}"
    );
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    // The rate is too high, so the first evaluation stays the best for a while.
    let settings = [
        "run.save_total_limit=2",
        "run.eval_steps=1",
        "run.metric_for_best_model=eval_loss",
        "optimizer.learning_rate=0.3",
    ];
    let kept = |folder: &Path| -> Vec<u64> {
        let names = fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.file_name());
        let steps = names.filter_map(|n| n.to_str()?.strip_prefix("checkpoint-")?.parse().ok());
        let mut steps: Vec<u64> = steps.collect();
        steps.sort_unstable();
        steps
    };
    stop(again(&folder, &settings), &Resume::Never, 5);
    let summary = finish(again(&folder, &settings), &Resume::Auto);
    let run_folder = folder.path().join("run");
    let text = fs::read_to_string(run_folder.join("metrics.jsonl")).unwrap();
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let losses = records.filter_map(|r| Some((r["eval_loss"].as_f64()?, r["step"].as_u64()?)));
    let best = losses
        .filter(|(_, step)| *step > 0)
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let (loss, step) = best.unwrap();
    let (path, value) = summary.best.unwrap();
    assert_eq!(
        (path, value),
        (run_folder.join(format!("checkpoint-{step}")), loss)
    );
    let mut expected = vec![step, 6, 7];
    expected.dedup();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(kept(&run_folder), expected);
    let latest = fs::read_to_string(run_folder.join("LATEST")).unwrap();
    assert_eq!(latest, "checkpoint-7\n");
    let other = tempfile::tempdir().unwrap();
    let settings = ["run.eval_steps=1", "run.metric_for_best_model=eval_los"];
    let error = run_error(again(&other, &settings), &Resume::Auto, &[]);
    assert!(error.contains("did you mean `eval_loss`?"), "{error}");
}

#[test]
fn a_run_ends_when_its_time_is_over_and_another_process_waits() {
    let folder = tempfile::tempdir().unwrap();
    let Opened::Run(mut first) =
        Run::open_with(again(&folder, &[]), &Resume::Auto, &[], &mut |_| {}).unwrap()
    else {
        panic!("nothing to do");
    };
    first.until.time = Some(Duration::ZERO);
    let mut other = None;
    let end = first.train(&mut |event| {
        if let Event::Saved(_) = event {
            other = Some(run_error(again(&folder, &[]), &Resume::Auto, &[]));
        }
    });
    let End::Stopped(stopped) = end.unwrap() else {
        panic!("finished")
    };
    assert_eq!((stopped.reason, stopped.step), (Reason::Time, 0));
    assert!(stopped.checkpoint.ends_with("checkpoint-0"));
    let other = other.unwrap();
    assert!(
        other.contains("is using this directory; wait for it to end"),
        "{other}"
    );
    let summary = finish(again(&folder, &[]), &Resume::Auto);
    assert_eq!(summary.resumed_from, Some(0));
}

#[test]
fn who_comes_late_does_not_begin_over_a_run_that_another_one_began() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Run::open_with(again(&folder, &[]), &Resume::Auto, &[], &mut |_| {});
    let Ok(Opened::Run(late)) = opened else {
        panic!("not opened")
    };
    stop(again(&folder, &[]), &Resume::Auto, 3);
    let before = files(&folder.path().join("run"));
    let error = late.train(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("has begun a run here meanwhile"), "{error}");
    assert!(files(&folder.path().join("run")) == before);
}

#[test]
fn who_goes_back_has_the_name_of_the_checkpoint_in_latest() {
    let (folder, run) = stopped();
    let from = Resume::From(run.join("checkpoint-2"));
    let End::Stopped(_) = run_to_its_time(again(&folder, &[]), &from) else {
        panic!("finished")
    };
    let latest = fs::read_to_string(run.join("LATEST")).unwrap();
    assert_eq!(latest, "checkpoint-2\n");
}

/// A run that ends before its first step.
fn run_to_its_time(config: Config, resume: &Resume) -> End {
    let Opened::Run(mut run) = Run::open_with(config, resume, &[], &mut |_| {}).unwrap() else {
        panic!("there is nothing left to do");
    };
    run.until.time = Some(Duration::ZERO);
    run.train(&mut |_| {}).unwrap()
}
