//! What is read of a chat completion.
//!
//! *Why*: of a tree of values a hostile answer makes many times its bytes; of these types it does not.

use serde::Deserialize;
use serde_json::Number;

use crate::eval::judge::reply::Reply;

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<Number>,
    #[serde(default)]
    completion_tokens: Option<Number>,
}

/// The reply of a chat completion. One without a text, as of a judge that refuses, is empty.
pub(super) fn reply(body: &[u8]) -> Option<Reply> {
    let body: Completion = serde_json::from_slice(body).ok()?;
    let usage = body.usage.as_ref();
    Some(Reply {
        text: body
            .choices
            .into_iter()
            .next()?
            .message
            .content
            .unwrap_or_default(),
        prompt_tokens: usage.and_then(|usage| usage.prompt_tokens.as_ref()?.as_u64()),
        completion_tokens: usage.and_then(|usage| usage.completion_tokens.as_ref()?.as_u64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_the_text_of_the_first_choice() {
        let text = |body: &str| reply(body.as_bytes()).map(|reply| reply.text);
        for (body, expected) in [
            (
                r#"{"choices": [{"message": {"content": "A"}}], "usage": null}"#,
                Some("A"),
            ),
            (r#"{"choices": [{"message": {"content": null}}]}"#, Some("")),
            (
                r#"{"choices": [{"message": {"refusal": "no"}, "index": 0}], "id": []}"#,
                Some(""),
            ),
            (r#"{"choices": [{"message": {"content": ["A"]}}]}"#, None),
            (r#"{"choices": []}"#, None),
            (r#"{"choices": [{"mess"#, None),
            ("[]", None),
        ] {
            assert_eq!(text(body).as_deref(), expected, "{body}");
        }
        let body = br#"{"choices": [{"message": {}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1.5}}"#;
        let reply = reply(body).unwrap();
        assert_eq!(
            (reply.prompt_tokens, reply.completion_tokens),
            (Some(7), None)
        );
    }
}
