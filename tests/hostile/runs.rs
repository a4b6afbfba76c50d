//! A run whose model directory or output directory is disturbed while it is at work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use expo::config::Config;
use expo::error::{Error, Result};
use expo::io::durable::{list_files, verify};
use expo::session::Event;
use expo::train::{End, Opened, Resume, Run};
use tempfile::TempDir;

use crate::support::fixture;

const STEPS: u64 = 4;

/// A directory with a model of its own.
struct Scene {
    folder: TempDir,
    more: &'static str,
}

impl Scene {
    /// With these sections in the config.
    fn new(more: &'static str) -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            more,
        };
        scene.restore_model();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn restore_model(&self) {
        let model = self.path("model");
        let _ = fs::remove_dir_all(&model);
        fs::create_dir_all(model.join("additional_chat_templates")).unwrap();
        for file in list_files(&fixture("llama")).unwrap() {
            fs::copy(fixture("llama").join(&file), model.join(&file)).unwrap();
        }
        fs::write(model.join("merges.txt"), "merges").unwrap();
        fs::write(model.join("chat_template.jinja"), "{{ messages }}").unwrap();
        let tools = model.join("additional_chat_templates/tools.jinja");
        fs::write(tools, "tools").unwrap();
    }

    /// A run of few steps into the directory `run`.
    fn config(&self, run: &str, set: &[&str]) -> Config {
        let pairs = fixture("pairs.jsonl");
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\n[data]\nformat = \"pairs\"\n\
             train = \"{pairs}[:6]\"\neval = \"{pairs}[20:]\"\nmax_length = 48\n\
             max_prompt_length = 24\n[batch]\nbatch_size = 3\n[optimizer]\nlearning_rate = 1e-3\n\
             {more}\n[run]\noutput_dir = {out:?}\ncache_dir = {cache:?}\nmax_steps = {STEPS}\n\
             eval_steps = 2\nlogging_steps = 1\neval_prompts = 1\neval_max_new_tokens = 3\n",
            model = self.path("model"),
            pairs = pairs.display(),
            more = self.more,
            out = self.path(run),
            cache = self.path("cache"),
        );
        let set: Vec<String> = set.iter().map(|&key| key.to_owned()).collect();
        Config::parse(&text, &set).unwrap()
    }

    /// Trains; `disturb` is told of each step that was made, and stops the run by saying so.
    fn train(
        &self,
        config: Config,
        resume: &Resume,
        mut disturb: impl FnMut(u64) -> bool,
    ) -> (Result<End>, Vec<String>) {
        let mut said = Vec::new();
        let mut hear = |event: Event| {
            if let Event::Warning(what) = event {
                said.push(what.to_owned());
            }
        };
        let run = match Run::open_with(config, resume, &[], &mut hear) {
            Ok(Opened::Run(run)) => run,
            Ok(Opened::Finished(_)) => panic!("there is nothing left to do"),
            Err(error) => return (Err(error), said),
        };
        let signal = run.until.signal.clone();
        let end = run.train(&mut |event| match event {
            Event::Step { step, .. } if disturb(step) => signal.store(15, Relaxed),
            Event::Warning(what) => said.push(what.to_owned()),
            _ => {}
        });
        (end, said)
    }

    /// The files that an undisturbed run of this config leaves.
    fn whole(&self, set: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
        let (end, _) = self.train(self.config("whole", set), &Resume::Never, |_| false);
        assert!(matches!(end, Ok(End::Finished(_))), "{end:?}");
        contents(&self.path("whole"))
    }
}

/// What must be the same of a run's directory: the model, the metrics, the generations.
fn contents(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = list_files(run).unwrap();
    let of_time = ["timings.jsonl", "summary.json", "run.lock", "config.toml"];
    files.retain(|file| !of_time.iter().any(|name| file.ends_with(name)));
    // What a run looks like that was gone on with tells of it.
    files.retain(|file| !file.ends_with("run.json") && !file.starts_with("tensorboard"));
    files.retain(|file| !file.to_string_lossy().starts_with("checkpoint-"));
    files.retain(|file| !file.ends_with("LATEST"));
    let read = |file: PathBuf| (file.clone(), fs::read(run.join(file)).unwrap());
    files.into_iter().map(read).collect()
}

fn assert_same(run: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>) {
    let found = contents(run);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(whole));
    for (name, bytes) in &found {
        assert!(*bytes == whole[name], "{} differs", name.display());
    }
    verify(run).unwrap();
}

#[test]
fn a_model_directory_that_changes_or_vanishes_during_a_run_changes_nothing() {
    fn garbage(path: &Path) {
        fs::write(path, "garbage").unwrap();
    }
    type Attack = (&'static str, fn(&Path));
    let attacks: [Attack; 4] = [
        ("a tokenizer of garbage", |model| {
            garbage(&model.join("tokenizer.json"));
            fs::remove_file(model.join("generation_config.json")).unwrap();
            garbage(&model.join("additional_chat_templates/tools.jinja"));
        }),
        ("another config", |model| {
            let path = model.join("config.json");
            let mut config = crate::support::json(&path);
            config["rms_norm_eps"] = 0.5.into();
            fs::write(path, config.to_string()).unwrap();
        }),
        ("weights that are cut off in place", |model| {
            garbage(&model.join("model.safetensors"));
        }),
        ("no directory", |model| fs::remove_dir_all(model).unwrap()),
    ];
    let scene = Scene::new("[loss.dpo]\n[reference]\nsteps = 2");
    let whole = scene.whole(&[]);
    for (what, attack) in attacks {
        scene.restore_model();
        let _ = fs::remove_dir_all(scene.path("run"));
        let (end, _) = scene.train(scene.config("run", &[]), &Resume::Never, |step| {
            if step == 1 {
                attack(&scene.path("model"));
            }
            false
        });
        assert!(matches!(end, Ok(End::Finished(_))), "{what}: {end:?}");
        assert_same(&scene.path("run"), &whole);
    }
}

#[test]
fn a_run_goes_on_after_its_model_directory_is_gone() {
    for more in [
        "[loss.dpo]",
        "[loss.dpo]\n[reference]\nsteps = 1",
        "[loss.sft]",
    ] {
        let scene = Scene::new(more);
        // The KL on the policy's answers alone needs the weights that are gone.
        let settings = ["run.save_steps=1", "run.eval_prompts=0"];
        let whole = scene.whole(&settings);
        let config = || scene.config("run", &settings);
        let (end, _) = scene.train(config(), &Resume::Never, |step| step == 1);
        assert!(matches!(end, Ok(End::Stopped(_))), "{more}: {end:?}");
        // What no hash is of is saved as it was when the run began.
        fs::write(scene.path("model/merges.txt"), "others").unwrap();
        let generation = scene.path("model/generation_config.json");
        let mut settings = crate::support::json(&generation);
        settings["temperature"] = 0.5.into();
        fs::write(generation, settings.to_string()).unwrap();
        let (end, said) = scene.train(config(), &Resume::Auto, |step| step == 2);
        assert!(matches!(end, Ok(End::Stopped(_))), "{more}: {end:?}");
        assert!(said.is_empty(), "{said:?}");
        // Files that cannot be parsed are as good as none.
        fs::write(scene.path("model/tokenizer.json"), "garbage").unwrap();
        let (end, said) = scene.train(config(), &Resume::Auto, |step| step == 3);
        assert!(matches!(end, Ok(End::Stopped(_))), "{more}: {end:?}");
        assert!(said[0].contains("going on with the files of"), "{said:?}");
        fs::remove_dir_all(scene.path("model")).unwrap();
        let (end, said) = scene.train(config(), &Resume::Auto, |_| false);
        assert!(matches!(end, Ok(End::Finished(_))), "{more}: {end:?}");
        assert!(said[0].contains("no such directory"), "{said:?}");
        assert_same(&scene.path("run"), &whole);
        let opened = Run::open_with(config(), &Resume::Auto, &[], &mut |_| {});
        assert!(matches!(opened, Ok(Opened::Finished(_))));
    }
}

#[test]
fn a_run_that_needs_the_weights_of_a_model_directory_that_is_gone_says_so() {
    let scene = Scene::new("[loss.dpo]");
    let config = || scene.config("run", &["run.save_steps=1"]);
    let (end, _) = scene.train(config(), &Resume::Never, |step| step == 2);
    assert!(matches!(end, Ok(End::Stopped(_))), "{end:?}");
    fs::remove_dir_all(scene.path("model")).unwrap();
    fs::remove_dir_all(scene.path("cache")).unwrap();
    let (end, _) = scene.train(config(), &Resume::Auto, |_| false);
    let message = end.unwrap_err().to_string();
    for part in [
        "model.model_name_or_path: ",
        "the reference needs the model's weights: no such directory",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // A directory that has another model is still refused.
    scene.restore_model();
    let weights = scene.path("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let (end, _) = scene.train(config(), &Resume::Auto, |_| false);
    let message = end.unwrap_err().to_string();
    let differs = "the model's weights differ (model.model_name_or_path)";
    assert!(message.contains(differs), "{message}");
}

#[test]
fn a_model_that_cannot_be_saved_at_the_end_is_kept_as_a_checkpoint() {
    let scene = Scene::new("[loss.dpo]");
    let whole = scene.whole(&[]);
    let obstacle = scene.path("run/model.safetensors");
    let (end, said) = scene.train(scene.config("run", &[]), &Resume::Never, |step| {
        if step == 1 {
            fs::create_dir(&obstacle).unwrap();
            fs::write(obstacle.join("x"), "").unwrap();
        }
        false
    });
    let error = end.unwrap_err();
    let checkpoint = scene.path("run/checkpoint-4");
    let expected = format!("its weights are in {}; ", checkpoint.display());
    assert!(error.to_string().contains(&expected), "{error}");
    let again = said.iter().filter(|what| what.contains("trying again"));
    assert_eq!(again.count(), 3, "{said:?}");
    verify(&checkpoint).unwrap();
    fs::remove_dir_all(&obstacle).unwrap();
    let (end, _) = scene.train(scene.config("run", &[]), &Resume::Auto, |_| false);
    assert!(matches!(end, Ok(End::Finished(_))), "{end:?}");
    assert_same(&scene.path("run"), &whole);
}

#[test]
fn an_output_directory_that_was_moved_away_is_not_made_anew_and_the_model_is_kept_beside_it() {
    let scene = Scene::new("[loss.dpo]");
    let whole = scene.whole(&[]);
    let run = scene.path("run");
    let (end, _) = scene.train(scene.config("run", &[]), &Resume::Never, |step| {
        if step == 1 {
            fs::rename(&run, scene.path("moved")).unwrap();
        }
        false
    });
    let message = end.unwrap_err().to_string();
    let rescued = scene.path("run-rescued-1");
    let expected = format!("and is in {}", rescued.display());
    assert!(message.contains("the lock is gone"), "{message}");
    assert!(message.contains(&expected), "{message}");
    assert!(!run.exists());
    let weights = Path::new("model.safetensors");
    assert!(fs::read(rescued.join(weights)).unwrap() == whole[weights]);
    verify(&rescued).unwrap();
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A run that was stopped, and a file of the user outside.
    fn stopped() -> (Scene, PathBuf) {
        let scene = Scene::new("[loss.dpo]");
        let config = scene.config("run", &["run.save_steps=1"]);
        let (end, _) = scene.train(config, &Resume::Never, |step| step == 2);
        assert!(matches!(end, Ok(End::Stopped(_))), "{end:?}");
        let precious = scene.path("precious");
        fs::write(&precious, "precious").unwrap();
        (scene, precious)
    }

    fn refused(scene: &Scene, resume: &Resume, set: &[&str]) -> Error {
        let config = scene.config("run", set);
        let (end, _) = scene.train(config, resume, |_| panic!("it began"));
        end.unwrap_err()
    }

    #[test]
    fn a_link_in_the_place_of_a_runs_own_file_is_refused() {
        let (scene, precious) = stopped();
        for name in [
            "run.lock",
            "metrics.jsonl",
            "timings.jsonl",
            "generations.jsonl",
            "margins.json",
            "non_finite.jsonl",
            "summary.json",
            "LATEST",
            "config.toml",
            "tensorboard",
        ] {
            let path = scene.path("run").join(name);
            let kept = scene.path("kept");
            let existed = fs::rename(&path, &kept).is_ok();
            symlink(&precious, &path).unwrap();
            let newest = Resume::From(scene.path("run/checkpoint-2"));
            for (resume, set) in [
                (Resume::Auto, &["run.save_steps=1"][..]),
                (newest, &["run.save_steps=1"]),
                (Resume::Never, &["run.overwrite=true"]),
            ] {
                let message = refused(&scene, &resume, set).to_string();
                let expected = format!(
                    "{}: is a symbolic link to {}; ",
                    path.display(),
                    precious.display()
                );
                assert!(message.starts_with(&expected), "{message}");
            }
            fs::remove_file(&path).unwrap();
            if existed {
                fs::rename(&kept, &path).unwrap();
            }
        }
        assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
    }

    #[test]
    fn a_checkpoint_that_is_a_link_is_refused() {
        let (scene, _) = stopped();
        let (path, elsewhere) = (scene.path("run/checkpoint-2"), scene.path("checkpoint-2"));
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        for resume in [Resume::Auto, Resume::From(path.join(""))] {
            let message = refused(&scene, &resume, &[]).to_string();
            assert!(message.contains("is a symbolic link to"), "{message}");
        }
    }

    #[test]
    fn a_file_of_the_user_in_a_directory_that_is_no_runs_is_kept() {
        let scene = Scene::new("[loss.dpo]");
        fs::create_dir(scene.path("run")).unwrap();
        let own = scene.path("run/config.toml");
        fs::write(&own, "own").unwrap();
        let message = refused(&scene, &Resume::Never, &[]).to_string();
        assert!(
            message.contains("holds config.toml, which is not a run's"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(own).unwrap(), "own");
    }
}
