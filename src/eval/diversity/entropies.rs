//! What a model says of responses that were drawn before.

use std::collections::HashMap;

use crate::config::{ModelConfig, PromptSource};
use crate::data::{Example, Prompt, Response, TokenizeConfig, prompts};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::head::ResponseScore;
use crate::score::scan;
use crate::session::{Event, Observer, Session};

/// Scores the responses to each prompt, which are token ids. A prompt is a text as it stands; where
/// `source` is given, the ids of its rows' prompts are taken, which may have been cut.
///
/// # Errors
/// If an id is not in the vocabulary, or a prompt with a response is longer than the model can hold.
pub fn entropies(
    model: &ModelConfig,
    source: Option<&PromptSource>,
    drawn: &[(&str, Vec<&[u32]>)],
    micro_batch_tokens: usize,
    observe: Observer,
) -> Result<Vec<Vec<ResponseScore>>> {
    let session = Session::open(model, observe)?;
    let session = match source {
        Some(source) => session.with_chat(&source.rows.tokens.chat)?,
        None => session,
    };
    let tokenizer = &session.tokenizer;
    let known: HashMap<String, Vec<u32>> = match source {
        None => HashMap::new(),
        Some(source) => {
            let prompts = prompts(&source.train, &source.rows, tokenizer)?.into_iter();
            prompts.map(|prompt| (prompt.text, prompt.ids)).collect()
        }
    };
    let plain = TokenizeConfig::default();
    let arch = &session.folder.arch;
    let (positions, vocabulary) = (arch.longest_sequence(), arch.vocab_size);
    let mut examples: Vec<Example> = Vec::new();
    for (number, (text, responses)) in drawn.iter().enumerate() {
        let ids = match known.get(*text) {
            Some(ids) => ids.clone(),
            None => Prompt::of_text(text, &format!("prompt {number}"), &plain, tokenizer)?.ids,
        };
        // Some at a time: a prompt is computed again rather than all its responses at once.
        let mut room = 0;
        for response in responses {
            let place = || format!("{}: prompt {number}", model.model_name_or_path);
            if let Some(id) = response.iter().find(|&&id| id as usize >= vocabulary) {
                let what = format!("token id {id} is outside the vocabulary of {vocabulary}");
                return Err(Error::input(what).hint("another model drew it").at(place()));
            }
            let length = ids.len() + response.len();
            if length > positions {
                let what = format!("prompt and response have {length} tokens");
                let hint = format!("the model was made for {positions} positions");
                return Err(Error::input(what).hint(hint).at(place()));
            }
            if room < response.len() {
                room = micro_batch_tokens
                    .saturating_sub(ids.len())
                    .max(response.len());
                examples.push(Example {
                    row: number,
                    prompt: ids.clone(),
                    responses: Vec::new(),
                    preference: None,
                });
            }
            room -= response.len();
            let response = Response::new(Role::Sampled, response.to_vec());
            let last = examples.last_mut().expect("one was pushed");
            last.responses.push(response);
        }
    }
    let (decoder, _) = session.load()?;
    let mut found: Vec<Vec<ResponseScore>> = vec![Vec::new(); drawn.len()];
    let total: usize = drawn.iter().map(|(_, responses)| responses.len()).sum();
    let (mut done, mut tokens) = (0, 0);
    observe(Event::Scoring {
        done,
        total,
        tokens,
    });
    scan(&decoder, &examples, micro_batch_tokens, |batch, scores| {
        for (example, scores) in batch.iter().zip(scores) {
            done += scores.len();
            tokens += example.prompt.len();
            tokens += scores.iter().map(|score| score.tokens).sum::<usize>();
            found[example.row].extend_from_slice(scores);
        }
        observe(Event::Scoring {
            done,
            total,
            tokens,
        });
    })?;
    Ok(found)
}
