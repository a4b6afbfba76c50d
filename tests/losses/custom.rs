//! An objective of another crate, as `cargo run --example custom_loss` trains it.

#[path = "../examples/custom_loss.rs"]
#[allow(dead_code)]
mod example;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use example::{Focal, open};
use expo::config::Config;
use expo::error::Result;
use expo::loss::{Loss, WeightedLoss};
use expo::train::{Opened, Run};

fn train(gamma: f64, folder: &Path, steps: u64) -> Result<()> {
    match open(Focal { beta: 0.1, gamma }, folder, steps)? {
        Opened::Run(run) => run.train(&mut |_| {}).map(drop),
        Opened::Finished(_) => Ok(()),
    }
}

#[test]
fn a_custom_loss_is_trained_like_one_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let (custom, dpo) = (folder.path().join("custom"), folder.path().join("dpo"));
    // Without its factor it is DPO.
    train(0.0, &custom, 3).unwrap();
    let settings = [
        "loss=dpo".to_owned(),
        format!("run.output_dir={dpo:?}"),
        "run.max_steps=3".into(),
    ];
    let config = Config::open(Path::new("configs/tiny.toml"), &settings).unwrap();
    Run::open(config, &mut |_| {})
        .unwrap()
        .train(&mut |_| {})
        .unwrap();
    for name in ["model.safetensors", "metrics.jsonl"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(&custom) == read(&dpo), "{name}");
    }
}

#[test]
fn a_run_records_the_name_and_the_knobs_of_a_custom_loss() {
    let folder = tempfile::tempdir().unwrap();
    train(2.0, folder.path(), 2).unwrap();
    let record = fs::read_to_string(folder.path().join("run.json")).unwrap();
    assert!(record.contains("loss.focal.gamma"), "{record}");
    let config = fs::read_to_string(folder.path().join("config.toml")).unwrap();
    assert!(
        config.contains("[loss.focal]\nbeta = 0.1\ngamma = 2.0\n"),
        "{config}"
    );
    // The same loss goes on, another one does not.
    train(2.0, folder.path(), 2).unwrap();
    let error = train(1.0, folder.path(), 2).unwrap_err().to_string();
    assert!(error.contains("loss.focal.gamma: 2.0 -> 1.0"), "{error}");
}

#[test]
fn what_makes_no_loss_is_refused() {
    let config = || Config::open(Path::new("configs/tiny.toml"), &[]).unwrap();
    let focal = |gamma| Arc::new(Focal { beta: 0.1, gamma });
    let refused = |loss: WeightedLoss| config().with_loss(loss).unwrap_err().to_string();
    assert_eq!(
        refused(Loss::custom("focal", focal(-1.0)).into()),
        "loss.focal: gamma = -1; it lies in [0, inf)"
    );
    let error = refused(Loss::custom("kto", focal(1.0)).into());
    assert!(error.contains("there is a loss `kto` already"), "{error}");
    let cexpo = Loss::default_of("cexpo").unwrap();
    assert!(refused(cexpo.into()).contains("needs samples"));
    let terms = || {
        [
            Loss::custom("focal", focal(1.0)),
            Loss::default_of("sft").unwrap(),
        ]
    };
    let sum = WeightedLoss::sum(terms().map(|loss| loss.weighted(0.5))).unwrap();
    assert_eq!(
        config().with_loss(sum).unwrap().loss.name(),
        "0.5 focal + 0.5 sft"
    );
    let twice = WeightedLoss::sum([terms(), terms()].concat()).unwrap_err();
    assert!(twice.to_string().contains("the loss focal is there twice"));
    assert!(WeightedLoss::sum([]).is_err());
    assert!(terms()[0].with("gamma", "1").is_err());
}
