//! Drawn responses: against transformers, against scores, against themselves in other batches.

use std::path::Path;

use candle_core::{DType, Device};
use expo::data::{Example, Prompt, Response, Tokenizer};
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::sampling::SampleConfig;
use expo::model::weights::ModelFolder;
use expo::sample::{Drawn, Sampler};
use serde_json::Value;

use crate::support::{MODELS, fixture, ids, json, real_fixtures};

/// A prompt as a sampler takes it.
pub fn prompt(text: &str, ids: Vec<u32>) -> Prompt {
    Prompt {
        text: text.to_owned(),
        instruction: text.to_owned(),
        ids,
        place: text.to_owned(),
        cut: false,
    }
}

/// A model folder with its tokenizer.
pub struct Place {
    pub model: Decoder,
    pub tokenizer: Tokenizer,
}

impl Place {
    /// Opens the folder in f32.
    pub fn open(folder: &Path) -> Self {
        let opened = ModelFolder::open(folder).unwrap();
        Self {
            model: opened.load(DType::F32, &Device::Cpu).unwrap().0,
            tokenizer: Tokenizer::open(folder).unwrap(),
        }
    }

    /// Draws one answer for each prompt.
    pub fn draw(&self, prompts: &[Prompt], config: &SampleConfig) -> Vec<Drawn> {
        self.sampler(config)
            .all(prompts, &mut |_, _, _| {})
            .unwrap()
    }

    fn sampler<'a>(&'a self, config: &'a SampleConfig) -> Sampler<'a> {
        let length = self.model.architecture().max_positions;
        Sampler::new(&self.model, &self.tokenizer, config, length)
    }
}

/// Draws the likeliest tokens.
pub fn greedy(tokens: usize, penalty: f64) -> SampleConfig {
    SampleConfig {
        greedy: true,
        max_new_tokens: tokens,
        repetition_penalty: penalty,
        ..SampleConfig::default()
    }
}

#[test]
fn processors_are_those_of_transformers() {
    let oracle = json(&fixture("processors.json"));
    let cases = oracle["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let settings = &case["settings"];
        let number = |key: &str| settings[key].as_f64().unwrap();
        let config = SampleConfig {
            temperature: number("temperature"),
            top_k: number("top_k") as usize,
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("repetition_penalty"),
            ..SampleConfig::default()
        };
        let logits = case["logits"].as_array().unwrap().iter();
        let logits: Vec<f32> = logits.map(|x| x.as_f64().unwrap() as f32).collect();
        let mut got = vec![f64::NEG_INFINITY; logits.len()];
        for (id, x) in config.process(&logits, &ids(&case["seen"])) {
            got[id as usize] = x;
        }
        let want = case["processed"].as_array().unwrap();
        for (id, (got, want)) in got.iter().zip(want).enumerate() {
            match want.as_f64() {
                Some(want) => assert!((got - want).abs() < 1e-12, "{settings} {id}: {got}, {want}"),
                None => assert_eq!(*got, f64::NEG_INFINITY, "{settings} {id}"),
            }
        }
    }
}

/// All prompts of an oracle at once, so that lengths differ within a batch.
fn greedy_agrees(place: &Place, cases: &[(Vec<u32>, f64, Vec<u32>)], what: &str) {
    for penalty in [1.0, 1.1] {
        let cases = || cases.iter().filter(|(_, own, _)| *own == penalty);
        let prompts: Vec<Prompt> = cases().map(|(ids, ..)| prompt(what, ids.clone())).collect();
        let tokens = cases().map(|(.., new)| new.len()).max().unwrap();
        let drawn = place.draw(&prompts, &greedy(tokens, penalty));
        assert_eq!(drawn.len(), prompts.len());
        for (drawn, (_, _, want)) in drawn.iter().zip(cases()) {
            assert_eq!(&drawn.ids[..want.len()], want, "{what}, penalty {penalty}");
        }
    }
}

#[test]
fn greedy_ids_of_our_models() {
    for name in MODELS {
        let oracle = json(&fixture(&format!("oracle/{name}.json")));
        let case = |case: &Value, key: &str, penalty: f64| {
            (ids(&case["prompt_ids"]), penalty, ids(&case[key]))
        };
        let greedy = oracle["greedy"].as_array().unwrap().iter();
        let cases: Vec<_> = greedy
            .flat_map(|one| {
                [
                    case(one, "new_ids", 1.0),
                    case(one, "new_ids_repetition_penalty_1.1", 1.1),
                ]
            })
            .collect();
        greedy_agrees(&Place::open(&fixture(name)), &cases, name);
    }
}

#[test]
fn greedy_ids_of_trained_models() {
    let Some(root) = real_fixtures() else { return };
    for name in ["neox-tiny", "stories260k"] {
        let oracle = json(&root.join(format!("oracle/{name}.json")));
        let greedy = oracle["generate"].as_array().unwrap().iter();
        let greedy = greedy.filter(|case| case["params"]["do_sample"] == false);
        let cases: Vec<_> = greedy
            .map(|case| {
                let penalty = case["params"]["repetition_penalty"].as_f64().unwrap_or(1.0);
                (ids(&case["prompt_ids"]), penalty, ids(&case["new_ids"]))
            })
            .collect();
        greedy_agrees(&Place::open(&root.join("models").join(name)), &cases, name);
    }
}

/// The story that the author of stories260k publishes, to the character.
#[test]
fn the_published_story() {
    let Some(root) = real_fixtures() else { return };
    let story = std::fs::read_to_string(root.join("oracle/stories260k_greedy_run_c.txt")).unwrap();
    let place = Place::open(&root.join("models/stories260k"));
    let start = prompt("", place.tokenizer.begin().to_vec());
    let config = greedy(260, 1.0);
    let sampler = place.sampler(&config);
    let drawn = &place.draw(std::slice::from_ref(&start), &config)[0];
    let text = sampler.text(&start, drawn).unwrap();
    let (text, story) = (text.trim_start(), story.trim_end());
    assert!(story.len() > 500 && text.starts_with(story), "{text}");
}

fn prompts(place: &Place) -> Vec<Prompt> {
    let texts = [
        "Is the duck kind?",
        "Where does the frog go after the rain?",
        "What does the sleepy owl eat after the rain?",
        "Who is in the barn?",
        "Is it?",
    ];
    let encode = |text: &&str| prompt(text, place.tokenizer.encode(text).unwrap());
    texts.iter().map(encode).collect()
}

/// What is drawn has the log-prob that the scoring pass gives it.
#[test]
fn log_probs_are_those_of_the_scoring_pass() {
    for name in [
        "neox",
        "llama",
        "llama3",
        "mistral",
        "qwen2-window",
        "qwen3",
    ] {
        let place = Place::open(&fixture(name));
        let config = SampleConfig {
            temperature: 0.7,
            top_k: 20,
            repetition_penalty: 1.2,
            max_new_tokens: 24,
            num_samples: 3,
            ..SampleConfig::default()
        };
        let prompts = prompts(&place);
        let drawn = place.draw(&prompts, &config);
        let examples = drawn.iter().enumerate().map(|(row, drawn)| Example {
            row,
            prompt: prompts[row / 3].ids.clone(),
            responses: vec![Response::new(Role::Sampled, drawn.ids.clone())],
            preference: None,
        });
        let examples: Vec<Example> = examples.collect();
        let packed = place.model.pack(&examples, &[Role::Sampled]);
        let scores = place.model.score(&packed).unwrap();
        for (drawn, scores) in drawn.iter().zip(scores) {
            assert!(
                (drawn.log_prob - scores[0].log_prob).abs() < 1e-4,
                "{name}: {drawn:?}"
            );
            let ended = place.tokenizer.ends().contains(drawn.ids.last().unwrap());
            assert_eq!(drawn.finished, ended);
            assert!(ended || drawn.ids.len() == 24);
        }
        let different: std::collections::HashSet<_> = drawn.iter().map(|d| &d.ids).collect();
        assert!(different.len() > 10, "{name}: samples repeat");
    }
}

/// Not a bit of them: also log-probs are the same, alone and in any company.
#[test]
fn responses_do_not_depend_on_the_batch() {
    for name in ["llama", "mistral", "qwen2-window", "neox"] {
        same_in_other_batches(name);
    }
}

fn same_in_other_batches(name: &str) {
    let place = Place::open(&fixture(name));
    let prompts = prompts(&place);
    let with = |batch_size: usize| {
        let config = SampleConfig {
            max_new_tokens: 32,
            num_samples: 8,
            batch_size,
            ..SampleConfig::default()
        };
        place.draw(&prompts, &config)
    };
    let alone = with(1);
    for size in [3, 7, 40] {
        assert!(alone == with(size), "{name}: in batches of {size}");
    }
}

#[test]
fn a_response_has_room_to_the_limit_and_no_further() {
    let place = Place::open(&fixture("llama"));
    let config = SampleConfig {
        max_new_tokens: 1000,
        num_samples: 2,
        ..SampleConfig::default()
    };
    let prompt = &prompts(&place)[..1];
    let limit = prompt[0].ids.len() + 5;
    let sampler = Sampler::new(&place.model, &place.tokenizer, &config, limit);
    for drawn in sampler.all(prompt, &mut |_, _, _| {}).unwrap() {
        assert!(drawn.ids.len() == 5 || drawn.finished);
    }
    let short = Sampler::new(&place.model, &place.tokenizer, &config, limit - 5);
    let error = short
        .all(prompt, &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("no room"), "{error}");
    let config = SampleConfig::default();
    let nothing = [self::prompt("nothing", Vec::new())];
    let error = place.sampler(&config).all(&nothing, &mut |_, _, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("empty"), "{error}");
}
