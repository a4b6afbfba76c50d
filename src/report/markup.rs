//! Text in HTML and SVG.

/// A text as HTML, in elements and in quoted attributes alike; signs that control a terminal are shown.
pub fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(sign),
            '\r' => {}
            '\u{7f}' => html.push('\u{2421}'),
            '\0'..'\u{20}' => html.extend(char::from_u32(0x2400 + sign as u32)),
            // What a parser of HTML calls an error, or changes.
            '\u{80}'..'\u{a0}' | '\u{fdd0}'..='\u{fdef}' => html.push('\u{fffd}'),
            sign if sign as u32 & 0xfffe == 0xfffe => html.push('\u{fffd}'),
            sign => html.push(sign),
        }
    }
    html
}
