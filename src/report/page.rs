//! A run, or several, as one page.
//!
//! Hides everything of HTML: one file that needs no other, that reads the same on a phone, on paper, in
//! light and dark, and without a script; the script adds values under the pointer.
//!
//! *Why*: a run is looked at by people who have a browser and perhaps no network. So curves are drawn
//! here, as SVG, and a policy in the page blocks all network requests (CSP). Numbers keep their digits beside
//! those that are shown, so that a page can be checked against its files.

mod chart;
mod curves;
mod estimator;
mod folder;
mod frontier;
mod html;
mod overview;
mod seeds;
mod tables;
mod texts;

use std::fmt::Write;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::chart::PAGE_COLORS;
use chart::Chart;
use html::section;

pub use folder::Recorded;
pub use seeds::over_seeds;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page of runs. With `refresh` it reloads every so many seconds, for a file that is rewritten while
/// a run is training.
pub fn page(runs: &[Recorded], refresh: Option<u64>) -> String {
    let mut charts = Map::new();
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let body = match runs {
        [run] => of_one(run, &mut charts),
        runs => of_several(runs, &mut charts),
    };
    let mut again = String::new();
    if let Some(seconds) = refresh {
        let _ = writeln!(
            again,
            "<noscript><meta http-equiv=\"refresh\" content=\"{seconds}\"></noscript>"
        );
    }
    let data = json!({"refresh": refresh, "charts": charts});
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"generator\" content=\"expo {}\">\n{again}\
         <title>{} · expo</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\
         <script type=\"application/json\" id=\"points\">{}</script>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        fingerprint(STYLE),
        fingerprint(SCRIPT),
        env!("CARGO_PKG_VERSION"),
        html::text(&title),
        html::data(&data),
    )
}

/// Whether a file that begins so is a page that this program wrote.
pub fn is_page(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    text.starts_with("<!DOCTYPE html>\n")
        && text.contains("\n<meta name=\"generator\" content=\"expo ")
}

fn of_one(run: &Recorded, charts: &mut Map<String, Value>) -> String {
    let mut sections = vec![
        ("Overview", "overview"),
        ("Curves", "curves"),
        ("Speed", "speed"),
        ("Samples", "samples"),
        ("Pairs", "pairs"),
    ];
    let curves = drawn(&curves::of_one(run), charts) + &curves::missing(run);
    let mut body = overview::of_one(run) + &overview::findings(run);
    body += &section("curves", "Curves", &curves);
    body += &speed(std::slice::from_ref(run), charts);
    body += &texts::samples(run);
    body += &texts::pairs(run);
    if let Some(story) = tables::story(run) {
        body += &story;
        sections.push(("Stories", "stories"));
    }
    body += &section("events", "Checkpoints and events", &tables::events(run));
    body += &overview::figures(run);
    body += &section("data", "Data", &tables::row_counts(run));
    body += &section("config", "Config", &tables::config(run));
    sections.extend([
        ("Events", "events"),
        ("Figures", "figures"),
        ("Data", "data"),
        ("Config", "config"),
    ]);
    page_body(&sections, &body)
}

fn of_several(runs: &[Recorded], charts: &mut Map<String, Value>) -> String {
    let sections = [
        ("Runs", "overview"),
        ("Frontier", "frontier"),
        ("Curves", "curves"),
        ("Speed", "speed"),
        ("Samples", "samples"),
        ("Differences", "differences"),
        ("Each run", "each"),
    ];
    let mut body = overview::of_several(runs);
    body += &seeds::section_of(runs);
    body += &section("frontier", "Frontier", &frontier::frontiers(runs));
    let legend = curves::legend(runs);
    let curves = drawn(&curves::of_several(runs), charts);
    body += &section("curves", "Curves", &(legend + &curves));
    body += &speed(runs, charts);
    body += &texts::samples_of(runs);
    body += &section("differences", "Differences", &tables::differences(runs));
    let mut each = String::new();
    for (at, run) in runs.iter().enumerate() {
        let _ = writeln!(
            each,
            "<details class=\"run\" id=\"run-{at}\"><summary><span class=\"dot c{}\"></span>{}</summary>\
             <h3>Data</h3>{}<h3>Checkpoints and events</h3>{}<h3>Config</h3>{}</details>",
            at % PAGE_COLORS,
            html::text(&run.name),
            tables::row_counts(run),
            tables::events(run),
            tables::config(run)
        );
    }
    body += &section("each", "Each run", &each);
    page_body(&sections, &body)
}

fn page_body(sections: &[(&str, &str)], body: &str) -> String {
    let mut nav = String::from("<nav aria-label=\"Sections\">");
    for (word, id) in sections {
        let _ = write!(nav, "<a href=\"#{id}\">{word}</a>");
    }
    format!("{nav}</nav>\n<main>\n{body}</main>\n")
}

fn speed(runs: &[Recorded], charts: &mut Map<String, Value>) -> String {
    let drawn = drawn(&curves::of_time(runs), charts);
    let body = match drawn.is_empty() {
        false => drawn,
        true => html::missing(
            "No timings yet: <code>timings.jsonl</code> has a line per <code>run.logging_steps</code> steps.",
        ),
    };
    section("speed", "Speed", &body)
}

/// The charts that have anything to draw, and their points into the page's data.
fn drawn(all: &[Chart], charts: &mut Map<String, Value>) -> String {
    let mut html = String::new();
    for chart in all.iter().filter(|chart| !chart.is_empty()) {
        let (figure, data) = chart.to_html();
        html += &figure;
        charts.insert(chart.id.clone(), data);
    }
    match html.is_empty() {
        true => html,
        false => format!("<div class=\"charts\">{html}</div>\n"),
    }
}

/// What a content security policy knows a style or a script by.
fn fingerprint(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::from("sha256-");
    for group in Sha256::digest(text).chunks(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            match place <= group.len() {
                true => base64.push(DIGITS[((bits >> (18 - 6 * place)) & 63) as usize] as char),
                false => base64.push('='),
            }
        }
    }
    base64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_browsers() {
        // Of the standard, "Content Security Policy Level 3", 8.2: the empty script.
        assert_eq!(
            fingerprint(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }
}
