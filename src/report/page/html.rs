//! Text, numbers and data as HTML.
//!
//! *Why*: what a model answers is anybody's text. Every text of a page goes through [`text`], every
//! number through [`number`], all data through [`data`], so that none of it can become markup.

use std::fmt::Write;

use serde_json::Value;

pub use crate::report::grouped;
pub use crate::report::markup::text;
use crate::report::significant;

/// A number with four significant digits, and all of them for programs.
pub fn number(x: f64) -> String {
    match x.is_finite() {
        true => format!("<data value=\"{}\">{}</data>", exact(x), short(x)),
        false => "<span class=\"bad\">not finite</span>".to_owned(),
    }
}

/// As [`number`], with a dash for a number that a file does not have.
pub fn number_or_dash(x: f64) -> String {
    match x.is_finite() {
        true => number(x),
        false => "–".to_owned(),
    }
}

/// All digits of a number, as JSON has them.
pub fn exact(x: f64) -> String {
    Value::from(x).to_string()
}

/// Four significant digits, or all that are before the point, with a true minus and commas.
pub fn short(x: f64) -> String {
    let shown = match (1e4..1e15).contains(&x.abs()) {
        true => grouped(x.abs().round() as u64),
        false => significant(x.abs()),
    };
    match x < 0.0 {
        true => format!("−{shown}"),
        false => shown,
    }
}

/// JSON that may stand in an element `script`: nothing in it looks like markup.
pub fn data(value: &Value) -> String {
    let mut json = String::new();
    for sign in value.to_string().chars() {
        match sign {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", sign as u32);
            }
            sign => json.push(sign),
        }
    }
    json
}

/// A table with a line of heads; cells are HTML, the first of a row is its head.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"wide\"><table><thead><tr>");
    for head in heads {
        let _ = write!(html, "<th scope=\"col\">{}</th>", text(head));
    }
    html += "</tr></thead><tbody>\n";
    for row in rows {
        html += "<tr>";
        for (at, cell) in row.iter().enumerate() {
            let _ = match at {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(html, "<td>{cell}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// A section of the page with an anchor.
pub fn section(id: &str, title: &str, body: &str) -> String {
    let title = text(title);
    format!("<section id=\"{id}\" aria-label=\"{title}\"><h2>{title}</h2>\n{body}</section>\n")
}

/// One line on what is not there and how to get it; `how` is HTML.
pub fn missing(how: &str) -> String {
    format!("<p class=\"missing\">{how}</p>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        let hostile = "</script><img src=x onerror='a()'>\"&\0\u{1b}[31m\r\n\u{9b}\u{ffff}";
        assert_eq!(
            text(hostile),
            "&lt;/script&gt;&lt;img src=x onerror=&#39;a()&#39;&gt;&quot;&amp;\u{2400}\u{241b}[31m\n\u{fffd}\u{fffd}"
        );
        let value = Value::from(hostile);
        let json = data(&value);
        assert!(!json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }

    #[test]
    fn numbers_keep_their_digits_beside_those_that_are_shown() {
        assert_eq!(
            number(-0.123_456_789_012_345_68),
            "<data value=\"-0.12345678901234568\">−0.1235</data>"
        );
        assert_eq!(short(1_234_567.0), "1,234,567");
        assert_eq!(short(1e-6), "1e-6");
        assert!(number(f64::NAN).contains("not finite"));
    }
}
