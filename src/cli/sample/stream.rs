//! One prompt, answered on the terminal.

use std::io::Write as _;

use expo::data::TokenizeConfig;
use expo::sample::{TextPrompt, sample_text};

use super::{SampleArgs, model};
use crate::cli::error::flagged;
use crate::cli::progress::Progress;
use crate::cli::terminal::printable;

/// Writes the response to one prompt to standard output while it is drawn; several would mix, so
/// they come at the end, each with its log-prob.
pub fn stream(args: &SampleArgs, prompt: &str, progress: &mut Progress) -> anyhow::Result<()> {
    let sample = args.settings.sample();
    flagged(sample.validate())?;
    let several = sample.num_samples > 1;
    let asked = TextPrompt {
        model: &model(args),
        tokens: TokenizeConfig {
            apply_chat_template: args.prompts.chat,
            ..TokenizeConfig::default()
        },
        sample: &sample,
        text: prompt,
        place: "--prompt",
    };
    let mut failed = Ok(());
    let mut out = std::io::stdout().lock();
    let drawn = sample_text(&asked, &mut |event| progress.show(event), |piece| {
        if failed.is_ok() {
            failed = out
                .write_all(printable(piece).as_bytes())
                .and_then(|()| out.flush());
        }
    });
    progress.close();
    let drawn = flagged(drawn)?;
    failed?;
    if several {
        for (number, (drawn, text)) in drawn.iter().enumerate() {
            let text = printable(text);
            writeln!(out, "[{number}] log-prob {:.2}\n{text}", drawn.log_prob)?;
        }
    } else {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}
