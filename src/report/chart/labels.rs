//! Names beside points, so that none covers another name or a point.
//!
//! Names are placed in their order, each at the first free place of a fixed list: close to its point, then
//! farther away with a line that leads to it. So the same points have the same picture.

use super::drawing::{Anchor, Form, Role, Shape};

/// A name for a point.
pub struct Label<'a> {
    /// What is written.
    pub text: &'a str,
    /// How wide that is.
    pub width: f64,
    /// The point.
    pub point: [f64; 2],
}

/// The radius of a point with a little room.
const POINT: f64 = 6.0;
/// How far a name may be from its point: close to it, and along a line.
const DISTANCES: [f64; 8] = [0.0, 16.0, 32.0, 48.0, 64.0, 80.0, 112.0, 144.0];
/// To which sides of its point a name may be: right, left, above, below, and between.
const SIDES: [[f64; 2]; 12] = [
    [1.0, -0.7],
    [-1.0, -0.7],
    [1.0, 0.7],
    [-1.0, 0.7],
    [1.0, 0.0],
    [-1.0, 0.0],
    [0.0, -1.0],
    [0.0, 1.0],
    [0.5, -1.0],
    [-0.5, -1.0],
    [0.5, 1.0],
    [-0.5, 1.0],
];

/// Left, top, right, bottom.
type Box = [f64; 4];

/// The names and their lines, inside a frame; `size` is the height of a letter.
pub fn labels(all: &[Label], size: f64, frame: Box) -> Vec<Shape> {
    let mut taken: Vec<Box> = all
        .iter()
        .map(|label| around(label.point, POINT, POINT))
        .collect();
    let mut shapes = Vec::new();
    for label in all {
        let mut best: Option<(f64, Box, f64)> = None;
        let places = DISTANCES
            .iter()
            .flat_map(|distance| SIDES.iter().map(move |side| (*distance, side)));
        for (distance, side) in places {
            let area = place(label, size, distance, side);
            let covered = taken.iter().map(|other| overlap(&area, other)).sum::<f64>()
                + outside(&area, &frame);
            if best.as_ref().is_none_or(|(least, ..)| covered < *least) {
                best = Some((covered, area, distance));
            }
            if covered == 0.0 {
                break;
            }
        }
        let Some((_, area, distance)) = best else {
            continue;
        };
        let [left, top, right, bottom] = area;
        if distance > 0.0 {
            let [x, y] = label.point;
            let end = [x.clamp(left, right), y.clamp(top, bottom)];
            shapes.push(Shape::lines(Role::Leader, vec![vec![label.point, end]]));
        }
        let form = Form::Text {
            text: label.text.to_owned(),
            at: [left, bottom - 0.2 * size],
            anchor: Anchor::Start,
            upward: false,
        };
        shapes.push(Shape::new(Role::Name, form));
        taken.push(area);
    }
    shapes
}

fn around([x, y]: [f64; 2], wide: f64, high: f64) -> Box {
    [x - wide, y - high, x + wide, y + high]
}

/// Where a name is at this distance to this side of its point.
fn place(label: &Label, size: f64, distance: f64, [x, y]: &[f64; 2]) -> Box {
    let (wide, high) = (label.width / 2.0, 0.7 * size);
    let centre = [
        label.point[0] + x * (POINT + wide + distance + 1.0),
        label.point[1] + y * (POINT + high + distance),
    ];
    around(centre, wide, high)
}

fn overlap(a: &Box, b: &Box) -> f64 {
    let wide = a[2].min(b[2]) - a[0].max(b[0]);
    let high = a[3].min(b[3]) - a[1].max(b[1]);
    wide.max(0.0) * high.max(0.0)
}

fn outside(area: &Box, frame: &Box) -> f64 {
    (area[2] - area[0]) * (area[3] - area[1]) - overlap(area, frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Box = [0.0, 0.0, 400.0, 300.0];

    /// Where each name is, by its left end and its baseline.
    fn areas(points: &[[f64; 2]]) -> Vec<Box> {
        let all: Vec<Label> = points
            .iter()
            .map(|point| Label {
                text: "a name",
                width: 60.0,
                point: *point,
            })
            .collect();
        let shapes = labels(&all, 10.0, FRAME);
        let texts = shapes.iter().filter_map(|shape| match &shape.form {
            Form::Text { at: [x, y], .. } => Some([*x, y + 2.0 - 14.0, x + 60.0, y + 2.0]),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn names_of_points_at_one_place_do_not_cover_each_other() {
        for points in [
            vec![[200.0, 150.0]; 8],
            vec![[399.0, 1.0]; 4],
            (0..10)
                .map(|i| [50.0 + 8.0 * f64::from(i), 100.0])
                .collect(),
        ] {
            let areas = areas(&points);
            assert_eq!(areas.len(), points.len());
            for (i, a) in areas.iter().enumerate() {
                assert!(outside(a, &FRAME) < 1e-9, "{a:?}");
                for b in &areas[..i] {
                    assert!(overlap(a, b) < 1e-9, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_name_away_from_its_point_has_a_line_to_it() {
        let label = |x: f64| Label {
            text: "n",
            width: 40.0,
            point: [x, 150.0],
        };
        let lines = |count: usize| {
            let all: Vec<Label> = (0..count).map(|_| label(200.0)).collect();
            let shapes = labels(&all, 10.0, FRAME);
            let is_line = |shape: &&Shape| shape.role == Role::Leader;
            shapes.iter().filter(is_line).count()
        };
        assert_eq!(lines(1), 0);
        assert!(lines(12) > 0);
        let places = |_| labels(&[label(30.0), label(31.0)], 10.0, FRAME).len();
        assert_eq!(places(0), places(1));
    }
}
