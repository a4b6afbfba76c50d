//! A drawing as SVG: inside a page with CSS classes, or as a file with its own colours.

use std::fmt::Write;

use super::drawing::{Anchor, Drawing, Form, Look, Role, Shape};
use crate::report::markup;

/// How many colours a page has; then they begin again.
pub const PAGE_COLORS: usize = 8;

/// What says how a shape looks.
#[derive(Clone, Copy)]
enum Styling {
    /// The CSS of a page, by class.
    Classes,
    /// Attributes of the shape.
    Attributes,
}

impl Drawing {
    /// As an element of a page, styled by its CSS.
    pub fn to_element(&self) -> String {
        let about = match self.label.is_empty() {
            true => "aria-hidden=\"true\"".to_owned(),
            false => format!("role=\"img\" aria-label=\"{}\"", markup::text(&self.label)),
        };
        let (width, height) = (self.width, self.height);
        let shapes = self.shapes_to_svg(Styling::Classes);
        format!("<svg viewBox=\"0 0 {width} {height}\" {about}>{shapes}</svg>")
    }

    /// As an SVG file, on white.
    pub fn to_svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let label = markup::text(&self.label);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <g fill=\"none\" stroke-linecap=\"round\" stroke-linejoin=\"round\" \
             font-family=\"system-ui, Helvetica, Arial, sans-serif\">\n{}</g>\n</svg>\n",
            self.shapes_to_svg(Styling::Attributes)
        )
    }

    fn shapes_to_svg(&self, styling: Styling) -> String {
        let mut svg = String::new();
        for shape in &self.shapes {
            shape.write(&mut svg, styling);
            if let Styling::Attributes = styling {
                svg.push('\n');
            }
        }
        svg
    }
}

impl Shape {
    fn write(&self, svg: &mut String, styling: Styling) {
        let style = match styling {
            Styling::Classes => format!(" class=\"{}\"", self.classes()),
            Styling::Attributes => self.attributes(),
        };
        let title = self.title.as_deref();
        let title = title.map(|title| format!("<title>{}</title>", markup::text(title)));
        let title = title.unwrap_or_default();
        let _ = match &self.form {
            Form::Lines(lines) => {
                let path: String = lines.iter().map(|line| path(line)).collect();
                write!(svg, "<path{style} d=\"{path}\">{title}</path>")
            }
            Form::Dots(dots, radius) => {
                let dot = |[x, y]: &[f64; 2]| {
                    let (x, y) = (short(*x), short(*y));
                    format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>")
                };
                let dots: String = dots.iter().map(dot).collect();
                write!(svg, "<g{style}>{title}{dots}</g>")
            }
            Form::Text {
                text, at, upward, ..
            } => {
                let [x, y] = at.map(short);
                let turn = match upward {
                    true => format!(" transform=\"rotate(-90 {x} {y})\""),
                    false => String::new(),
                };
                let text = markup::text(text);
                write!(svg, "<text{style} x=\"{x}\" y=\"{y}\"{turn}>{text}</text>")
            }
        };
    }

    fn classes(&self) -> String {
        let role = match self.role {
            Role::Grid => "grid".to_owned(),
            Role::Axis => "axis".to_owned(),
            Role::Event => "event".to_owned(),
            Role::Rule => "rule".to_owned(),
            Role::Leader => "leader".to_owned(),
            Role::Title => "title".to_owned(),
            Role::Label => "label".to_owned(),
            Role::Name => "name".to_owned(),
            Role::Curve(color, look) => {
                let look = match look {
                    Look::Faint | Look::Bar => " faint",
                    look if look.is_dashed() => " dashed",
                    _ => "",
                };
                format!("curve c{}{look}", color % PAGE_COLORS)
            }
        };
        match &self.form {
            Form::Text { anchor, .. } => format!("{role} {}", anchor.word()),
            _ => role,
        }
    }

    fn attributes(&self) -> String {
        let pen = self.role.pen();
        let [r, g, b] = pen.color;
        let color = format!("#{r:02x}{g:02x}{b:02x}");
        match &self.form {
            Form::Lines(_) => {
                let mut style = format!(" stroke=\"{color}\" stroke-width=\"{}\"", pen.size);
                if pen.opacity < 1.0 {
                    let _ = write!(style, " stroke-opacity=\"{}\"", pen.opacity);
                }
                if let Some([dash, gap]) = pen.dash {
                    let _ = write!(style, " stroke-dasharray=\"{dash} {gap}\"");
                }
                style
            }
            Form::Dots(..) => format!(" fill=\"{color}\" stroke=\"white\" stroke-width=\"1.2\""),
            // Capitals are about 0.72 of a font's size.
            Form::Text { anchor, .. } => format!(
                " fill=\"{color}\" font-size=\"{:.1}\" text-anchor=\"{}\"",
                pen.size / 0.72,
                anchor.word()
            ),
        }
    }
}

impl Anchor {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

fn path(line: &[[f64; 2]]) -> String {
    let mut path = String::new();
    for (index, point) in line.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let [x, y] = point.map(short);
        let _ = write!(path, "{command}{x} {y}");
    }
    path
}

/// A length with at most two digits after the point.
fn short(length: f64) -> f64 {
    (length * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing() -> Drawing {
        let at = [0.126, 10.0];
        Drawing {
            width: 100.0,
            height: 20.0,
            label: "a < \"b\"".into(),
            shapes: vec![
                Shape::text(Role::Label, "a < \"b\" & c", at, Anchor::Start),
                Shape {
                    title: Some("<here>".into()),
                    ..Shape::lines(Role::Curve(9, Look::Dashed), vec![vec![at, [2.0, 3.5]]])
                },
            ],
        }
    }

    #[test]
    fn a_file_has_its_own_colours_and_its_texts_are_escaped() {
        let svg = drawing().to_svg();
        assert!(svg.contains("aria-label=\"a &lt; &quot;b&quot;\""), "{svg}");
        assert!(
            svg.contains(">a &lt; &quot;b&quot; &amp; c</text>"),
            "{svg}"
        );
        assert!(svg.contains("stroke=\"#009e73\""), "{svg}");
        assert!(svg.contains("d=\"M0.13 10L2 3.5\""), "{svg}");
        assert!(!svg.contains("class="), "{svg}");
    }

    #[test]
    fn an_element_of_a_page_has_classes_and_no_colours() {
        let svg = drawing().to_element();
        assert!(svg.contains("<path class=\"curve c1 dashed\""), "{svg}");
        assert!(svg.contains("<text class=\"label start\""), "{svg}");
        assert!(svg.contains("<title>&lt;here&gt;</title>"), "{svg}");
        assert!(!svg.contains("stroke"), "{svg}");
    }
}
