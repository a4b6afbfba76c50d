//! Curves over steps as SVG with real text.
//!
//! Hides layout, ticks, and that of very many points only some are drawn.
//!
//! *Why*: beside [`Figure`](crate::report::Figure), whose letters are lines so that a file needs no
//! font, a page has fonts, takes its colours from the reader's light or dark, and can be searched.

use std::fmt::Write;

use serde_json::{Value, json};

use super::html;
use crate::report::chart::{
    Axis, Curve, Drawing, KEY, PAGE_COLORS, Plot, Role, Shape, is_drawn, key, room,
};

/// Curves in one frame.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Its name in the page's data.
    pub id: String,
    /// Above it.
    pub title: String,
    /// What is drawn, in a line.
    pub about: String,
    /// What it draws.
    pub lines: Vec<Curve>,
    /// Steps that something happened at, with what it was.
    pub marks: Vec<(u64, String)>,
    /// What is known of its values.
    pub scale: Scale,
    /// Whether it says which line is which; charts of several runs share one legend.
    pub legend: bool,
}

/// What is known of the values of a chart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// Nothing; those over many powers of ten have equal factors equally far apart.
    #[default]
    Any,
    /// They are shares, in [0, 1].
    Share,
    /// They are shares, of which 0.5 is chance.
    Chance,
    /// Their differences count, however small.
    Linear,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 232.0;
/// Left, top, right, bottom of what is drawn in.
const FRAME: [f64; 4] = [48.0, 12.0, 408.0, 206.0];
/// Pixel columns, of each of which a long curve draws the lowest and the highest point.
const COLUMNS: usize = 360;

impl Chart {
    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    fn values(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self
            .lines
            .iter()
            .flat_map(|line| line.points.iter().copied());
        points.filter(|(_, y)| is_drawn(*y))
    }

    /// The figure, and its points for the page's data.
    pub fn to_html(&self) -> (String, Value) {
        let (x, y) = self.axes();
        let thinned: Vec<Curve> = self.lines.iter().map(|line| thinned(line, &x)).collect();
        let plot = Plot {
            x: &x,
            y: &y,
            frame: FRAME,
        };
        let [left, top, right, bottom] = FRAME;
        let mut shapes = plot.grid(false);
        shapes.push(Shape::lines(
            Role::Axis,
            vec![vec![[left, bottom], [right, bottom]]],
        ));
        for (step, what) in &self.marks {
            let [at, _] = plot.place((*step as f64, y.from));
            if (left..=right).contains(&at) {
                shapes.push(Shape {
                    title: Some(what.clone()),
                    ..Shape::lines(Role::Event, vec![vec![[at, top], [at, bottom]]])
                });
            }
        }
        if self.scale == Scale::Chance {
            let [_, at] = plot.place((x.from, CHANCE));
            shapes.push(Shape {
                title: Some("0.5: chance".to_owned()),
                ..Shape::lines(Role::Rule, vec![vec![[left, at], [right, at]]])
            });
        }
        shapes.extend(thinned.iter().flat_map(|line| plot.curve(line)));
        let drawing = Drawing {
            width: WIDTH,
            height: HEIGHT,
            label: self.in_words(),
            shapes,
        };
        let drawn: usize = thinned.iter().map(|line| line.points.len()).sum();
        let all: usize = self.lines.iter().map(|line| line.points.len()).sum();
        let mut note = String::new();
        if drawn < all {
            let (drawn, all) = (html::grouped(drawn as u64), html::grouped(all as u64));
            note = format!(
                "<p class=\"note\">{drawn} of {all} points are drawn: the lowest and the highest of \
                 each of {COLUMNS} columns.</p>"
            );
        }
        let figure = format!(
            "<figure class=\"chart\" data-chart=\"{}\"><figcaption><h3>{}</h3><p>{}</p></figcaption>\
             {}{}{note}</figure>\n",
            html::text(&self.id),
            html::text(&self.title),
            html::text(&self.about),
            self.legend(),
            drawing.to_element(),
        );
        let line = |line: &Curve| {
            let (steps, values): (Vec<f64>, Vec<f64>) = line.points.iter().copied().unzip();
            let steps: Vec<u64> = steps.into_iter().map(|step| step as u64).collect();
            json!({"label": line.label, "color": line.color % PAGE_COLORS, "x": steps, "y": values})
        };
        let lines: Vec<Value> = thinned.iter().map(line).collect();
        let data = json!({"frame": FRAME, "from": x.from, "to": x.to, "lines": lines});
        (figure, data)
    }

    fn axes(&self) -> (Axis, Axis) {
        let ends = |of: fn((f64, f64)) -> f64| {
            self.values()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        };
        let (from, to) = ends(|point| point.0);
        // Step 0 is always there, so that a resumed run does not look complete.
        let from = from.min(0.0);
        let x = Axis::linear("step", from, to.max(from + 1.0));
        let (low, high) = ends(|point| point.1);
        if low > high {
            return (x, Axis::linear("", 0.0, 1.0));
        }
        if self.scale == Scale::Any && low > 1e-300 && high / low > 1e3 {
            return (x, Axis::log("", low / 1.3, high * 1.3));
        }
        let (low, high) = match self.scale {
            Scale::Chance => around_chance(low, high),
            _ => (low, high),
        };
        let room = room(low, high, 0.07);
        let (mut from, mut to) = (low - room, high + room);
        // No room for values that there cannot be.
        if matches!(self.scale, Scale::Share | Scale::Chance) {
            (from, to) = (from.max(-0.03), to.min(1.03));
        } else if low >= 0.0 && from < 0.0 {
            from = 0.0;
        }
        (x, Axis::linear("", from, to))
    }

    fn in_words(&self) -> String {
        let mut words = format!("{} over steps", self.title);
        for line in &self.lines {
            let finite = || line.points.iter().filter(|(_, y)| y.is_finite());
            if let (Some(first), Some(last)) = (finite().next(), finite().next_back()) {
                let value =
                    |point: &(f64, f64)| format!("{} at step {}", html::short(point.1), point.0);
                let _ = write!(
                    words,
                    "; {}: {} to {}",
                    line.label,
                    value(first),
                    value(last)
                );
            }
        }
        words
    }

    fn legend(&self) -> String {
        if !self.legend {
            return String::new();
        }
        let mut legend = String::from("<ul class=\"legend\">");
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let key = Drawing {
                width: KEY,
                height: 10.0,
                shapes: key(line.color, line.look, [0.0, 5.0]),
                ..Drawing::default()
            };
            let (key, label) = (key.to_element(), html::text(&line.label));
            let _ = write!(legend, "<li>{key}{label}</li>");
        }
        legend + "</ul>"
    }
}

/// The accuracy of a coin.
pub const CHANCE: f64 = 0.5;

/// A range of accuracies with chance in it, wide enough that a tenth of a percent is no leap.
pub fn around_chance(low: f64, high: f64) -> (f64, f64) {
    (low.min(CHANCE - 0.05), high.max(CHANCE + 0.05))
}

/// The lowest and the highest of each column of pixels where there are more points than that, one
/// that is no number where a column has any, and the first and the last.
fn thinned(line: &Curve, x: &Axis) -> Curve {
    if line.points.len() <= 2 * COLUMNS {
        return line.clone();
    }
    let column = |step: f64| (x.place(step) * COLUMNS as f64) as usize;
    let mut points = vec![line.points[0]];
    for column in line.points.chunk_by(|a, b| column(a.0) == column(b.0)) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let finite = || column.iter().filter(|(_, y)| y.is_finite());
        let broken = column.iter().find(|(_, y)| !y.is_finite());
        let mut ends = [finite().min_by(by), finite().max_by(by), broken];
        ends.sort_by(|a, b| {
            a.map(|a| a.0)
                .partial_cmp(&b.map(|b| b.0))
                .expect("no NaN steps")
        });
        points.extend(ends.into_iter().flatten());
    }
    points.extend(line.points.last());
    points.dedup();
    Curve {
        points,
        ..line.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::Look;

    fn line(points: Vec<(f64, f64)>) -> Curve {
        Curve {
            label: "train".into(),
            color: 0,
            look: Look::Line,
            points,
        }
    }

    #[test]
    fn a_long_curve_keeps_its_extremes_and_its_ends() {
        let mut points: Vec<(f64, f64)> = (0..20_000)
            .map(|step| (f64::from(step), (f64::from(step) * 0.01).sin()))
            .collect();
        points[7_777].1 = 9.0;
        points[12_345].1 = -9.0;
        points[5_000].1 = f64::NAN;
        let chart = Chart {
            lines: vec![line(points.clone())],
            ..Chart::default()
        };
        let (html, data) = chart.to_html();
        let kept = data["lines"][0]["y"].as_array().unwrap();
        assert!(kept.len() <= 2 * COLUMNS + 4, "{}", kept.len());
        for extreme in [9.0, -9.0] {
            assert!(kept.iter().any(|y| y == extreme));
        }
        assert_eq!(kept[0], points[0].1);
        assert_eq!(kept[kept.len() - 1], points[19_999].1);
        let steps = data["lines"][0]["x"].as_array().unwrap();
        assert!(steps.is_sorted_by_key(|step| step.as_u64()));
        assert!(html.contains("of 20,000 points are drawn"), "{html}");
        assert!(html.len() < 40_000, "{}", html.len());
    }

    #[test]
    fn one_point_and_equal_values_and_nothing_finite_are_drawn() {
        for points in [
            vec![(0.0, 0.5)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            vec![(3.0, 1e-7), (4.0, 1e-7)],
            vec![(0.0, f64::NAN)],
        ] {
            let chart = Chart {
                lines: vec![line(points)],
                ..Chart::default()
            };
            let (html, _) = chart.to_html();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }
}
