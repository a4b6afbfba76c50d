//! `expo guide`: the guide on a terminal.

mod markdown;

use std::fmt::Write;
use std::io::{IsTerminal, Write as _};

use anyhow::Context;
use clap::Args;
use expo::error::Error;
use expo::guide::{PAGES, Page};

use super::answer;
use super::terminal;
use markdown::Style;

/// Print a page of the guide, or the list of pages.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct GuideArgs {
    /// The page, e.g. data
    topic: Option<String>,

    /// Print the Markdown of the page as it is
    #[arg(long, requires = "topic")]
    markdown: bool,
}

const HELP: &str = "\
On a terminal, headings are bold; NO_COLOR=1 turns that off. Pipe long pages
into a pager.

Examples:
  $ expo guide
  $ expo guide data
  $ expo guide resume | less";

/// Runs the command.
pub fn run(args: &GuideArgs) -> anyhow::Result<()> {
    let Some(topic) = &args.topic else {
        return answer(&contents()?);
    };
    let page = Page::find(topic).ok_or_else(|| {
        let names: Vec<&str> = PAGES.iter().map(|page| page.name).collect();
        Error::input(format!("the guide has no page {topic:?}"))
            .hint(format!("pages: {}", names.join(", ")))
    })?;
    if args.markdown {
        return answer(page.text);
    }
    let styled = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if styled { Style::Ansi } else { Style::Plain };
    let text = markdown::render(page.text, terminal::width(), style);
    // Not `answer`, which writes escapes out: the page is this program's own.
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("standard output")
}

fn contents() -> anyhow::Result<String> {
    let mut text = String::from("Pages of the guide; read one with expo guide TOPIC:\n\n");
    for page in PAGES {
        let name = page.name.replace('_', "-");
        writeln!(text, "  {name:<14}{}", page.about)?;
    }
    Ok(text)
}
