//! Event files, read back field by field. `scripts/check_tensorboard.py` does it with TensorBoard's own
//! reader.

use super::*;

/// A field of a message: its number, and its bytes or its number's.
type Field<'a> = (u64, &'a [u8]);

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let before = bytes;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes);
                let value = &before[..before.len() - bytes.len()];
                all.push((key >> 3, value));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, &bytes[..length]));
        bytes = &bytes[length..];
    }
    all
}

fn field(bytes: &[u8], number: u64) -> Option<&[u8]> {
    fields(bytes)
        .into_iter()
        .find(|(other, _)| *other == number)
        .map(|(_, value)| value)
}

/// The events of a file.
fn events(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let (mut rest, mut all) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        all.push(rest[12..12 + length].to_vec());
        rest = &rest[12 + length + 4..];
    }
    all
}

fn step(event: &[u8]) -> f64 {
    varint(&mut field(event, 2).expect("a step")) as f64
}

/// (tag, step, value) of the scalars of a file.
fn scalars(path: &Path) -> Vec<(String, f64, f32)> {
    let mut all = Vec::new();
    for event in events(path) {
        let Some(summary) = field(&event, 5) else {
            continue;
        };
        for (_, value) in fields(summary) {
            if let Some(number) = field(value, 2) {
                let tag = String::from_utf8(field(value, 1).unwrap().to_vec()).unwrap();
                all.push((
                    tag,
                    step(&event),
                    f32::from_le_bytes(number.try_into().unwrap()),
                ));
            }
        }
    }
    all
}

fn files(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("tensorboard")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_figure_of_every_record_is_a_scalar_and_the_config_a_text() {
    let files = files(whole());
    // One of each process.
    assert_eq!(files.len(), 2);
    let got: Vec<_> = files.iter().flat_map(|file| scalars(file)).collect();
    let mut want = Vec::new();
    for record in records(whole()) {
        let record = record.as_object().unwrap().clone();
        let step = record["step"].as_f64().unwrap();
        let is_eval = record.contains_key("eval_loss");
        for (name, value) in &record {
            let tag = match name.strip_prefix("eval_") {
                Some(name) => format!("eval/{name}"),
                None if name == "step" || (is_eval && name == "epoch") => continue,
                None => format!("train/{name}"),
            };
            want.push((tag, step, value.as_f64().unwrap() as f32));
        }
    }
    let metrics: Vec<_> = got
        .iter()
        .filter(|(tag, ..)| !tag.starts_with("perf/"))
        .cloned()
        .collect();
    assert_eq!(metrics, want);
    assert!(got.iter().any(|(tag, ..)| tag == "perf/tokens_per_second"));
    let first = events(&files[0]);
    assert_eq!(field(&first[0], 3), Some(&b"brain.Event:2"[..]));
    let config = fs::read_to_string(whole().join("config.toml")).unwrap();
    let text = String::from_utf8_lossy(&first[1]).into_owned();
    assert!(text.contains("output_dir = ") && config.contains("output_dir = "));
    // The second begins by having what comes after the checkpoint forgotten.
    let second = events(&files[1]);
    assert_eq!(field(&second[0], 3), Some(&b"brain.Event:2"[..]));
    let log = field(&second[1], 7).expect("a session log");
    assert_eq!((field(log, 1), step(&second[1])), (Some(&[1u8][..]), 4.0));
}

#[test]
fn a_branch_is_told_of_everything_and_a_run_that_is_replaced_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let config = |more: &str| {
        let text = fs::read_to_string(whole().join("config.toml")).unwrap();
        let out = format!("run.output_dir={:?}", place.path().join("branch"));
        Config::parse(&text, &[out, more.to_owned()]).unwrap()
    };
    let from = Resume::From(whole().join("checkpoint-3"));
    let finish = |config: Config, resume: &Resume| {
        let allow = ["run.max_steps".to_owned()];
        let allow = &allow[..usize::from(*resume != Resume::Never)];
        let opened = Run::open_with(config, resume, allow, &mut |_| {});
        let Opened::Run(run) = opened.unwrap_or_else(|error| panic!("{error}")) else {
            panic!("there is nothing left to do")
        };
        run.train(&mut |_| {}).unwrap();
    };
    finish(config("run.max_steps=5"), &from);
    let branch = place.path().join("branch");
    let files = files(&branch);
    assert_eq!(files.len(), 1);
    let told: Vec<_> = scalars(&files[0])
        .into_iter()
        .filter(|(tag, ..)| tag == "train/loss")
        .collect();
    let losses = points(&records(&branch), "loss").into_iter();
    let losses: Vec<_> = losses
        .map(|(step, y)| ("train/loss".to_owned(), step, y as f32))
        .collect();
    assert_eq!((told.len(), told), (5, losses));
    finish(config("run.overwrite=true"), &Resume::Never);
    assert_eq!(super::tensorboard::files(&branch).len(), 1);
}

#[test]
fn an_unknown_name_is_refused_with_those_that_are_known() {
    let text = fs::read_to_string(whole().join("config.toml")).unwrap();
    let error = Config::parse(&text, &["run.report_to=[\"tensorbord\"]".to_owned()]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("set run.report_to=[\"tensorbord\"]: report_to names \"tensorbord\"; did you mean `tensorboard`?"),
        "{error}"
    );
    let error = Config::parse(&text, &["run.report_to=[\"wandb\"]".to_owned()]);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("valid: tensorboard")
    );
}
