//! What is refused: one line that names the place and what would be valid.

use std::fs;
use std::path::Path;

use super::{Place, str};
use crate::support::fixture;

#[test]
fn configs() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let good = fs::read_to_string(&config).unwrap();
    let file = |from: &str, to: &str| {
        assert!(good.contains(from));
        place.write("bad.toml", good.replacen(from, to, 1))
    };
    let line = |key: &str| {
        let at = good.lines().position(|line| line.starts_with(key));
        format!("bad.toml:{}: ", at.unwrap() + 1)
    };
    let bad = file("batch_size", "batchsize");
    place.refuse_run(
        &bad,
        &[],
        &[
            "bad.toml",
            &line("batch_size"),
            "`batchsize`",
            "`batch_size`?",
        ],
    );
    // The place is the file's also where there are overrides.
    place.refuse_run(&bad, &["run.seed=1"], &["bad.toml", &line("batch_size")]);
    let bad = file("[loss.dpo]", "[loss.dpo]\ngamma = 1.0");
    let next = format!(
        "bad.toml:{}: ",
        good.lines().position(|l| l == "[loss.dpo]").unwrap() + 2
    );
    place.refuse_run(&bad, &[], &[&next, "`gamma`", "beta"]);
    place.refuse_run(&file("[run]", "[run"), &[], &["bad.toml", &line("[run]")]);
    place.refuse_run(&file("[loss.dpo]", ""), &[], &["no loss", "[loss.dpo]"]);
    let bad = file("[loss.dpo]", "[loss.dpo]\n[loss.ipo]");
    place.refuse_run(&bad, &[], &["2 losses: dpo, ipo", "`weight`", &next]);
    place.refuse_run(
        &file("", ""),
        &["loss.ipo={}"],
        &[
            "--set loss.ipo={}: the loss is dpo, not ipo",
            "(--set loss=ipo)",
        ],
    );
    let bad = file("[loss.dpo]", "[loss.typo]\n[loss.cexpo]");
    place.refuse_run(&bad, &[], &["the loss cexpo is there twice"]);
    let sum = "[loss.sft]\nweight = 1.0\n[loss.dpo]\nweight = 0.5\ngamma = 1\n";
    let after = |lines: usize| {
        let at = good.lines().position(|line| line == "[loss.dpo]").unwrap();
        format!("bad.toml:{}: ", at + 1 + lines)
    };
    let bad = file("[loss.dpo]", sum);
    place.refuse_run(&bad, &[], &[&after(4), "`gamma`", "beta"]);
    let bad = file(
        "[loss.dpo]",
        &sum.replace("gamma = 1\n", "").replace("0.5", "\"half\""),
    );
    place.refuse_run(&bad, &[], &[&after(3), "a number"]);
    let bad = file("batch_size = 8", "batch_size = \"eight\"");
    place.refuse_run(&bad, &[], &[&line("batch_size"), "eight"]);

    for (set, words) in [
        (
            "data.samples=x.jsonl",
            ["--set data.samples=x.jsonl: ", "dpo"],
        ),
        ("loss.dpo.lambda=1", ["--set loss.dpo.lambda=1", "beta"]),
        ("loss=dop", ["--set loss=dop: ", "`dpo`?"]),
        ("loss=cdpo", ["`cdpo`", "dpo with label_smoothing"]),
        (
            "loss.dpo.weight=0",
            ["--set loss.dpo.weight=0: ", "(0, inf)"],
        ),
        ("reference.steps=0", ["--set reference.steps=0: ", "steps"]),
        (
            "reference.alpha=1.5",
            ["--set reference.alpha=1.5: ", "(0, 1]"],
        ),
        ("loss.dop.beta=1", ["`dop`", "`dpo`?"]),
        ("loss=cexpo", ["--set loss=cexpo: ", "data.samples"]),
        (
            "loss.rexpo.lambda=1.5",
            ["--set loss.rexpo.lambda=1.5: ", "lambda"],
        ),
        ("run.sed=1", ["--set run.sed=1", "`seed`?"]),
        ("seed=1", ["--set seed=1", "did you mean `run.seed`?"]),
        ("batch.batch_size", ["--set batch.batch_size", "no `=`"]),
        (
            "batch.batch_size=x",
            ["--set batch.batch_size=x", "expected"],
        ),
        (
            "batch.batch_size=0",
            ["--set batch.batch_size=0: ", "must be >= 1"],
        ),
        (
            "data.max_prompt_length=128",
            ["no room for an answer", "128"],
        ),
        (
            "data.max_length=100000",
            ["--set data.max_length=100000: ", "256"],
        ),
        ("data.format=hhh", ["hhh", "hh"]),
        (
            "model.device=cuda:0",
            ["--set model.device=cuda:0: ", "no CUDA"],
        ),
        ("model.device=tpu", ["--set model.device=tpu: ", "cpu"]),
        ("model.dtype=f64", ["f64", "f32"]),
        (
            "optimizer.learning_rate=-1",
            ["--set optimizer.learning_rate=-1: ", "(got -1)"],
        ),
        ("optimizer.states=half", ["`half`", "split"]),
        (
            "optimizer.states=split",
            ["states = \"split\"", "model.dtype is \"f32\""],
        ),
        (
            "schedule.warmup_ratio=2",
            ["--set schedule.warmup_ratio=2: ", "(got 2)"],
        ),
    ] {
        place.refuse_run(&config, &[set], &words);
    }
    let split = ["model.dtype=bf16", "optimizer.states=split"];
    let words = [
        "--set optimizer.states=split: ",
        "on the CPU",
        "bf16 weights on a GPU",
    ];
    place.refuse_run(&config, &split, &words);
    place.refuse_run(Path::new("none.toml"), &[], &["none.toml", "no such file"]);
}

#[test]
fn lambda_outside_its_range() {
    let place = Place::new();
    let samples = format!("samples = {:?}", fixture("samples.jsonl"));
    let config = place.config(&fixture("neox"), "cexpo", &samples, "");
    for lambda in ["-0.1", "nan", "inf"] {
        let set = format!("loss.cexpo.lambda={lambda}");
        place.refuse_run(
            &config,
            &[&set],
            &["--set loss.cexpo.lambda=", "lambda must be"],
        );
    }
}

#[test]
fn data() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let row = "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \" c\"}";
    let set = |name: &str, contents: &str| {
        place.write(name, contents);
        format!("data.train={name}")
    };
    for (set, words) in [
        (
            "data.train=none.jsonl".into(),
            ["none.jsonl", "no such file"],
        ),
        (
            "data.eval=none.jsonl".into(),
            ["none.jsonl", "no such file"],
        ),
        (
            set("bad.jsonl", &format!("{row}\n{{oops\n")),
            ["bad.jsonl:2", "not JSON"],
        ),
        (
            set(
                "short.jsonl",
                &format!("{row}\n{row}\n{{\"prompt\": \"a\"}}\n"),
            ),
            ["short.jsonl:3", "no column `chosen`"],
        ),
        (set("empty.jsonl", ""), ["empty.jsonl", "no rows"]),
        (
            set(
                "blank.jsonl",
                "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \" \"}\n",
            ),
            ["blank.jsonl:1", "an answer is empty"],
        ),
        (
            "data.reference_log_probs=none.jsonl".into(),
            ["none.jsonl", "no such file"],
        ),
        (
            {
                place.write("other.jsonl", format!("{row}\n"));
                "data.reference_log_probs=other.jsonl".into()
            },
            ["other.jsonl:1", "not a row of scores"],
        ),
    ] {
        let set: String = set;
        // A row that cannot be used would be left out.
        place.refuse_run(&config, &[&set, "data.on_invalid=error"], &words);
    }
}

#[test]
fn models() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let refuse = |model: &Path, words: &[&str]| {
        let set = format!("model.model_name_or_path={}", str(model));
        place.refuse_run(&config, &[&set], words);
    };
    refuse(&place.path("none"), &["none", "no such directory"]);
    refuse(Path::new("org/none"), &["org/none", "HF_HUB_OFFLINE"]);

    let model = place.model("neox");
    let whole = |name: &str| fs::read(fixture("neox").join(name)).unwrap();
    let weights = model.join("model.safetensors");
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    refuse(&model, &["no tokenizer.json"]);
    fs::copy(
        fixture("llama").join("tokenizer.json"),
        model.join("tokenizer.json"),
    )
    .unwrap();
    refuse(&model, &["ids up to 339", "304 rows"]);
    fs::write(model.join("tokenizer.json"), whole("tokenizer.json")).unwrap();

    let bytes = whole("model.safetensors");
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&weights, &bytes[..length]).unwrap();
        refuse(
            &model,
            &["model.safetensors", "the safetensors file is incomplete"],
        );
    }
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, &nan).unwrap();
    refuse(&model, &["model.safetensors", "NaN"]);
    fs::remove_file(&weights).unwrap();
    refuse(&model, &["no weights in the directory"]);
}

#[test]
fn an_output_folder_that_holds_a_run() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "simpo", "", "max_steps = 1");
    place.succeed(&["train", "--config", str(&config)]);
    let before = fs::read(place.path("out/metrics.jsonl")).unwrap();
    let end = place.run(&["train", "--config", str(&config), "--resume", "never"]);
    assert_eq!(end.code, Some(2), "{}", end.err);
    assert!(end.err.contains("holds a run already"), "{}", end.err);
    // Of a changed run all changes are named at once, with all that can be done.
    let changed = [
        ["--set", "optimizer.learning_rate=1e-4", "--set", "loss=ipo"],
        ["--set", "batch.batch_size=4", "--set", "run.seed=3"],
    ];
    let args = [&["train", "--config", str(&config)][..], &changed.concat()].concat();
    let end = place.run(&args);
    assert_eq!(end.code, Some(2), "{}", end.err);
    let last = end.err.lines().last().unwrap();
    for words in [
        "out: holds a finished run of another config: ",
        "optimizer.learning_rate: 0.001 -> 0.0001",
        "batch.batch_size: 8 -> 4",
        "run.seed: 0 -> 3",
        "loss: simpo -> ipo",
        "; choose another run.output_dir, or replace the run (--set run.overwrite=true)",
    ] {
        assert!(last.contains(words), "no {words:?} in {last}");
    }
    assert!(!last.contains("the rows differ"), "{last}");
    // A run that is finished is left alone.
    let said = place.succeed(&["train", "--config", str(&config)]);
    assert!(said.starts_with("the run is finished"), "{said}");
    let said = place.succeed(&["train", "--config", str(&config), "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(summary["steps"], 1);
    assert_eq!(fs::read(place.path("out/metrics.jsonl")).unwrap(), before);
    place.succeed(&[
        "train",
        "--config",
        str(&config),
        "--set",
        "run.overwrite=true",
    ]);
}

/// Log-probs that are not those of the reference are seen before anything is written: also of
/// answers that no gradient reaches.
#[test]
fn a_reference_column_that_is_off() {
    for (loss, role) in [("dpo", "rejected"), ("kto", "mismatched")] {
        let place = Place::new();
        let config = place.config(&fixture("neox"), loss, "", "");
        let scores = place.path("s.jsonl");
        place.succeed(&["score", "--config", str(&config), "--out", str(&scores)]);
        let off = super::lines(&scores).into_iter().map(|mut row| {
            let score = match row[role].is_array() {
                true => &mut row[role][0],
                false => &mut row[role],
            };
            score["log_prob"] = (score["log_prob"].as_f64().unwrap() - 0.1).into();
            format!("{row}\n\n")
        });
        place.write("s.jsonl", off.collect::<String>());
        let set = format!("data.reference_log_probs={}", str(&scores));
        place.refuse_run(&config, &[&set], &["row 0", "same model", "score again"]);
    }
}

#[test]
fn a_run_over_its_own_model() {
    let place = Place::new();
    let model = place.model("neox");
    let config = place.config(&model, "dpo", "", "");
    for (output, words) in [
        (model.clone(), "holds a model that is not a run's"),
        (
            place.folder.path().to_owned(),
            "is not empty and holds no run of expo, but the directory ",
        ),
    ] {
        let set = format!("run.output_dir={}", str(&output));
        place.refuse_run(&config, &[&set], &[words]);
        assert!(model.join("model.safetensors").exists());
    }
    place.write("file", "");
    place.refuse_run(
        &config,
        &["run.output_dir=file/out"],
        &["file", "is not a directory"],
    );
}

#[test]
fn an_alias_in_an_override_is_the_loss_of_the_file() {
    let place = Place::new();
    let samples = format!("samples = {:?}", fixture("samples.jsonl"));
    let config = place.config(&fixture("neox"), "cexpo", &samples, "");
    let set = ["--set", "loss.typo.lambda=0.3", "--print-config"];
    let args = [&["train", "--config", str(&config)][..], &set].concat();
    assert!(
        place
            .succeed(&args)
            .contains("[loss.cexpo]\nlambda = 0.3\n")
    );
}

#[test]
fn scores_and_new_models() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "simpo", "", "");
    let config = str(&config);
    let (neox, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let (neox, pairs) = (str(&neox), str(&pairs));
    let score = ["score", "--model", neox, "--data", pairs, "--out"];
    place.write("there.jsonl", "mine");
    place.refuse(
        &[&score[..], &["there.jsonl"]].concat(),
        &["there.jsonl", "--overwrite"],
    );
    assert_eq!(super::text(&place.path("there.jsonl")), "mine");
    place.refuse(
        &["score", "--config", config, "--out", "out"],
        &["simpo", "no reference"],
    );
    place.refuse(
        &[&score[..], &["out", "--device", "cuda"]].concat(),
        &["no CUDA"],
    );
    place.refuse(
        &[&score[..], &["out", "--max-length", "300"]].concat(),
        &["max_length", "256"],
    );

    let llama = fixture("llama");
    let init = |config: &str, tokenizer: &str, words: &[&str]| {
        let mut args = vec!["init", "--config-json", config, "--tokenizer", tokenizer];
        args.extend(["--out", "out"]);
        place.refuse(&args, words);
    };
    init(neox, str(&llama), &["ids up to 339", "304 rows"]);
    init("none.json", neox, &["none.json", "no such file"]);
    init(neox, "none.json", &["none.json", "no such file"]);
    place.write("bert.json", "{\"model_type\": \"bert\"}");
    init("bert.json", neox, &["\"bert\"", "gpt_neox"]);
    place.write("list.json", "[]");
    init("list.json", neox, &["list.json", "not a JSON object"]);
    let there = place.model("neox");
    let args = [
        "init",
        "--config-json",
        neox,
        "--tokenizer",
        neox,
        "--out",
        str(&there),
    ];
    place.refuse(&args, &["already exists"]);
}
