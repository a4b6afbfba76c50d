//! What of a line is inside a frame.

/// Whether a point is inside a frame: left, top, right, bottom.
pub fn within([x, y]: [f64; 2], [left, top, right, bottom]: [f64; 4]) -> bool {
    (left..=right).contains(&x) && (top..=bottom).contains(&y)
}

/// The parts of a line inside a frame.
pub fn clipped(points: &[[f64; 2]], frame: [f64; 4]) -> Vec<Vec<[f64; 2]>> {
    let mut lines: Vec<Vec<[f64; 2]>> = Vec::new();
    for pair in points.windows(2) {
        let Some([from, to]) = clip([pair[0], pair[1]], frame) else {
            continue;
        };
        match lines.last_mut().filter(|line| line.last() == Some(&from)) {
            Some(line) => line.push(to),
            None => lines.push(vec![from, to]),
        }
    }
    lines
}

/// The part of a segment inside a frame (Liang and Barsky 1984).
fn clip([a, b]: [[f64; 2]; 2], [left, top, right, bottom]: [f64; 4]) -> Option<[[f64; 2]; 2]> {
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (from, to, low, high) in [(a[0], b[0], left, right), (a[1], b[1], top, bottom)] {
        if !(from.is_finite() && to.is_finite()) {
            return None;
        }
        let step = to - from;
        if step == 0.0 {
            if !(low..=high).contains(&from) {
                return None;
            }
            continue;
        }
        let (one, other) = ((low - from) / step, (high - from) / step);
        enter = enter.max(one.min(other));
        leave = leave.min(one.max(other));
    }
    let at = |t: f64| [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t];
    // The ends themselves keep their digits, so that the next segment joins them.
    let start = if enter == 0.0 { a } else { at(enter) };
    let end = if leave == 1.0 { b } else { at(leave) };
    (enter <= leave).then_some([start, end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_frame() {
        let frame = [0.0, 0.0, 10.0, 10.0];
        let inside = clipped(&[[5.0, 5.0], [5.0, 20.0], [8.0, 20.0], [8.0, 5.0]], frame);
        let expected = [[[5.0, 5.0], [5.0, 10.0]], [[8.0, 10.0], [8.0, 5.0]]];
        assert_eq!(inside, expected);
        assert!(clipped(&[[0.0, f64::NAN], [1.0, 1.0]], frame).is_empty());
    }
}
