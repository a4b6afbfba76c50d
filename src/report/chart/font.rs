//! The letters of a PNG, as lines.
//!
//! *Why*: a figure needs some hundred signs, a font file is a third party's and a dependency. Each
//! sign is a few strokes on a grid: baseline 0, small letters 5 high, capitals 7.

use super::drawing::Anchor;

/// The height of capitals on the grid.
const CAPITAL: f64 = 7.0;
/// The space between two signs.
const GAP: f64 = 1.6;
/// The width of a space.
const SPACE: f64 = 1.6;
/// Straight pieces per stretch of a curve.
const PIECES: usize = 6;

/// In each line a sign, its width, its strokes. Strokes are divided by `;`, points by spaces; `~`
/// before the points draws a curve through them, `o` a closed one.
const SIGNS: &str = "\
0 4 o2,7 3.6,5.9 4,3.5 3.6,1.1 2,0 .4,1.1 0,3.5 .4,5.9
1 4 .6,5.6 2.3,7 2.3,0
2 4 ~.1,5.3 .6,6.5 2,7 3.4,6.5 3.8,5.2 3.2,3.8 0,0;0,0 4,0
3 4 ~.2,6.1 .9,6.8 2,7 3.3,6.5 3.6,5.3 3,4.1 1.5,3.8;~1.5,3.8 3.3,3.3 4,2 3.4,.5 1.9,0 .7,.2 0,1
4 4.2 3.1,0 3.1,7 0,2.1 4.2,2.1
5 4 3.6,7 .6,7 .3,3.8;~.3,3.8 1,4.3 2,4.5 3.4,4 4,2.3 3.4,.6 1.8,0 .7,.2 0,.9
6 4 ~3.6,6.3 2.9,6.9 2,7 .7,6.2 .1,4 .1,2.3 .7,.6 2,0 3.4,.6 3.9,2.2 3.4,3.8 2.1,4.3 .8,3.7 .1,2.3
7 4 0,7 4,7 1.4,0
8 4 o2,7 3.3,6.5 3.7,5.4 3.1,4.2 2,3.8 .9,4.2 .3,5.4 .7,6.5;o2,3.8 3.4,3.2 4,1.9 3.4,.5 2,0 .6,.5 0,1.9 .6,3.2
9 4 ~.4,.7 1.1,.1 2,0 3.3,.8 3.9,3 3.9,4.7 3.3,6.4 2,7 .6,6.4 .1,4.8 .6,3.2 1.9,2.7 3.2,3.3 3.9,4.7
A 4.8 0,0 2.4,7 4.8,0;.9,2.4 3.9,2.4
B 4.2 0,7 0,0;0,7 2.1,7;~2.1,7 3.4,6.6 3.8,5.4 3.4,4.2 2.1,3.7;0,3.7 2.2,3.7;~2.2,3.7 3.7,3.2 4.2,1.9 3.7,.5 2.2,0;2.2,0 0,0
C 4.5 ~4.4,5.5 3.7,6.6 2.4,7 .8,6.1 0,3.5 .8,.9 2.4,0 3.7,.4 4.5,1.5
D 4.5 0,0 0,7 1.9,7;~1.9,7 3.7,6.2 4.5,3.5 3.7,.8 1.9,0;1.9,0 0,0
E 3.8 3.8,7 0,7 0,0 3.8,0;0,3.7 3.3,3.7
F 3.8 3.8,7 0,7 0,0;0,3.7 3.2,3.7
G 4.6 ~4.4,5.6 3.7,6.6 2.4,7 .8,6.1 0,3.5 .8,.9 2.4,0 3.7,.4 4.6,1.5;4.6,1.5 4.6,3.3 2.6,3.3
H 4.2 0,0 0,7;4.2,0 4.2,7;0,3.7 4.2,3.7
I 0.4 .2,0 .2,7
J 3 3,7 3,2;~3,2 2.6,.5 1.5,0 .4,.5 0,1.9
K 4.2 0,0 0,7;4,7 0,2.8;1.5,4.3 4.2,0
L 3.6 0,7 0,0 3.6,0
M 5.2 0,0 0,7 2.6,1.6 5.2,7 5.2,0
N 4.2 0,0 0,7 4.2,0 4.2,7
O 5 o2.5,7 4.2,6.1 5,3.5 4.2,.9 2.5,0 .8,.9 0,3.5 .8,6.1
P 4.1 0,0 0,7 2.2,7;~2.2,7 3.7,6.5 4.1,5.1 3.7,3.7 2.2,3.2;2.2,3.2 0,3.2
Q 5 o2.5,7 4.2,6.1 5,3.5 4.2,.9 2.5,0 .8,.9 0,3.5 .8,6.1;2.9,1.8 4.8,-.7
R 4.2 0,0 0,7 2.2,7;~2.2,7 3.7,6.5 4.1,5.1 3.7,3.7 2.2,3.2;2.2,3.2 0,3.2;2.2,3.2 4.2,0
S 4 ~3.8,5.7 3.2,6.6 2,7 .7,6.5 .2,5.3 .8,4.2 2,3.7 3.4,3.1 4,1.9 3.4,.5 2,0 .7,.4 0,1.5
T 4.6 0,7 4.6,7;2.3,7 2.3,0
U 4.2 0,7 0,2.3;~0,2.3 .6,.6 2.1,0 3.6,.6 4.2,2.3;4.2,2.3 4.2,7
V 4.6 0,7 2.3,0 4.6,7
W 6.4 0,7 1.6,0 3.2,6 4.8,0 6.4,7
X 4.4 0,7 4.4,0;0,0 4.4,7
Y 4.4 0,7 2.2,3.4 4.4,7;2.2,3.4 2.2,0
Z 4.2 0,7 4.2,7 0,0 4.2,0
a 3.7 o1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 3.1,.7 3.7,2.5 3.1,4.3;3.7,5 3.7,0
b 3.7 0,7 0,0;o1.8,5 3.1,4.3 3.7,2.5 3.1,.7 1.8,0 .6,.7 0,2.5 .6,4.3
c 3.4 ~3.4,4.1 2.8,4.8 1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 2.8,.2 3.4,.9
d 3.7 o1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 3.1,.7 3.7,2.5 3.1,4.3;3.7,7 3.7,0
e 3.7 .1,2.6 3.7,2.6;~3.7,2.6 3.2,4.3 1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 2.9,.2 3.5,.9
f 2.5 ~2.5,6.8 1.8,7 1.1,6.5 .9,5.4;.9,5.4 .9,0;0,4.8 2.3,4.8
g 3.7 o1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 3.1,.7 3.7,2.5 3.1,4.3;3.7,5 3.7,-.3;~3.7,-.3 3.2,-1.6 1.9,-2.1 .4,-1.6
h 3.5 0,7 0,0;~0,3.2 .7,4.6 1.9,5 3.1,4.5 3.5,3.2;3.5,3.2 3.5,0
i 0.4 .2,5 .2,0;.2,6.7 .2,6.8
j 1.2 1,5 1,-.8;~1,-.8 .7,-1.8 -.2,-2;1,6.7 1,6.8
k 3.5 0,7 0,0;3.3,5 0,1.9;1.3,3.1 3.5,0
l 0.4 .2,7 .2,0
m 5.6 0,5 0,0;~0,3.4 .5,4.6 1.5,5 2.5,4.5 2.8,3.4;2.8,3.4 2.8,0;~2.8,3.4 3.3,4.6 4.3,5 5.3,4.5 5.6,3.4;5.6,3.4 5.6,0
n 3.5 0,5 0,0;~0,3.2 .7,4.6 1.9,5 3.1,4.5 3.5,3.2;3.5,3.2 3.5,0
o 3.8 o1.9,5 3.2,4.3 3.8,2.5 3.2,.7 1.9,0 .6,.7 0,2.5 .6,4.3
p 3.7 0,5 0,-2;o1.8,5 3.1,4.3 3.7,2.5 3.1,.7 1.8,0 .6,.7 0,2.5 .6,4.3
q 3.7 o1.9,5 .6,4.3 0,2.5 .6,.7 1.9,0 3.1,.7 3.7,2.5 3.1,4.3;3.7,5 3.7,-2
r 2.4 0,5 0,0;~0,3 .6,4.4 1.5,5 2.4,4.9
s 3.1 ~3,4 2.5,4.8 1.5,5 .5,4.6 .2,3.7 .7,2.9 1.6,2.6 2.7,2.1 3.1,1.3 2.6,.3 1.5,0 .5,.2 0,1
t 2.6 1,6.6 1,1.2;~1,1.2 1.3,.2 2.1,0 2.6,.2;0,4.9 2.4,4.9
u 3.5 0,5 0,1.8;~0,1.8 .4,.5 1.6,0 2.8,.4 3.5,1.8;3.5,5 3.5,0
v 3.6 0,5 1.8,0 3.6,5
w 5.2 0,5 1.3,0 2.6,4.4 3.9,0 5.2,5
x 3.4 0,5 3.4,0;0,0 3.4,5
y 3.6 0,5 1.8,.2;3.6,5 1.5,-.9;~1.5,-.9 .9,-1.8 0,-2
z 3.3 0,5 3.3,5 0,0 3.3,0
. 0.4 .2,0 .2,.2
, 0.6 .5,.2 .1,-1.2
: 0.4 .2,.3 .2,.5;.2,4 .2,4.2
; 0.6 .5,.2 .1,-1.2;.5,4 .5,4.2
- 2.6 0,2.7 2.6,2.7
− 2.6 0,2.7 2.6,2.7
+ 3.6 0,2.9 3.6,2.9;1.8,1.1 1.8,4.7
= 3.6 0,3.8 3.6,3.8;0,2 3.6,2
/ 2.8 0,-.8 2.8,7.4
( 1.4 ~1.4,7.8 .5,5.9 .1,3.1 .5,.3 1.4,-1.6
) 1.4 ~0,7.8 .9,5.9 1.3,3.1 .9,.3 0,-1.6
[ 1.3 1.3,7.6 .1,7.6 .1,-1.4 1.3,-1.4
] 1.3 0,7.6 1.2,7.6 1.2,-1.4 0,-1.4
| 0.4 .2,7.6 .2,-1.6
* 2.6 1.3,7 1.3,4;0,6.3 2.6,4.7;0,4.7 2.6,6.3
_ 3.6 0,-.8 3.6,-.8
% 5 .6,0 4.4,7;o1,7 2,6 2,5 1,4 0,5 0,6;o4,3 5,2 5,1 4,0 3,1 3,2
< 3.3 3.3,5 0,2.9 3.3,.8
> 3.3 0,5 3.3,2.9 0,.8
^ 2.8 0,5.4 1.4,7 2.8,5.4
² 2.2 ~.1,6.9 .6,7.6 1.3,7.7 2,7.2 1.7,6.3 0,4.5;0,4.5 2.2,4.5
θ 3.6 o1.8,7 3.2,5.9 3.6,3.5 3.2,1.1 1.8,0 .4,1.1 0,3.5 .4,5.9;.1,3.6 3.5,3.6
α 4 ~4,5 3.2,2.4 2.6,.7 1.7,0 .6,.7 0,2.5 .6,4.3 1.7,5 2.6,4.2 3.3,1.4 4,0
β 3.8 ~0,-2 .1,1 .1,4.5 .6,6.4 1.8,7 3,6.5 3.3,5.4 2.7,4.2 1.3,3.8;~1.3,3.8 3.1,3.3 3.8,2 3.2,.5 1.9,0 .8,.3 .1,1
λ 4 ~.2,6.9 .9,6.9 1.5,6 3.3,.7 4,0;2,4.6 0,0
π 4.4 0,4.7 4.4,4.7;1.2,4.7 .8,0;3.2,4.7 3.2,1.2;~3.2,1.2 3.4,.2 4.3,.2
";

/// The width and the strokes of a sign that is not in [`SIGNS`]: a box.
const UNKNOWN: (f64, &str) = (3.6, "0,0 0,7 3.6,7 3.6,0 0,0");

/// The width of a text with capitals of height `size`.
pub fn width(text: &str, size: f64) -> f64 {
    let signs = text.chars().map(|c| sign(c).0 + GAP);
    (signs.sum::<f64>() - GAP).max(0.0) * size / CAPITAL
}

/// The lines of a text with capitals of height `size`, its baseline through `at`.
pub fn text(
    text: &str,
    at: [f64; 2],
    size: f64,
    anchor: Anchor,
    upward: bool,
) -> Vec<Vec<[f64; 2]>> {
    let scale = size / CAPITAL;
    let mut left = match anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width(text, CAPITAL) / 2.0,
        Anchor::End => -width(text, CAPITAL),
    };
    let mut lines = Vec::new();
    for c in text.chars() {
        let (width, strokes) = sign(c);
        let place = |[x, y]: [f64; 2]| {
            let (along, up) = ((left + x) * scale, y * scale);
            match upward {
                false => [at[0] + along, at[1] - up],
                true => [at[0] - up, at[1] - along],
            }
        };
        let strokes = strokes.split(';').filter(|stroke| !stroke.is_empty());
        lines.extend(strokes.map(|stroke| curve(stroke).into_iter().map(place).collect()));
        left += width + GAP;
    }
    lines
}

/// The width and the strokes of a sign.
fn sign(c: char) -> (f64, &'static str) {
    if c == ' ' {
        return (SPACE, "");
    }
    let known = SIGNS
        .lines()
        .find_map(|line| line.strip_prefix(c)?.strip_prefix(' '));
    known.map_or(UNKNOWN, |sign| {
        let (width, strokes) = sign.split_once(' ').expect("SIGNS has widths");
        (width.parse().expect("SIGNS has widths"), strokes)
    })
}

fn curve(stroke: &str) -> Vec<[f64; 2]> {
    let points = |text: &str| -> Vec<[f64; 2]> {
        let number = |text: &str| text.parse().expect("SIGNS has numbers");
        let point = |text: &str| text.split_once(',').map(|(x, y)| [number(x), number(y)]);
        text.split(' ').filter_map(point).collect()
    };
    if let Some(rest) = stroke.strip_prefix('o') {
        let points = points(rest);
        let n = points.len();
        return smooth(n, |i| points[(i + n as isize) as usize % n]);
    }
    if let Some(rest) = stroke.strip_prefix('~') {
        let points = points(rest);
        let last = points.len() as isize - 1;
        return smooth(points.len() - 1, |i| points[i.clamp(0, last) as usize]);
    }
    points(stroke)
}

/// Catmull and Rom's curve through the points `at(0)` to `at(stretches)`.
fn smooth(stretches: usize, at: impl Fn(isize) -> [f64; 2]) -> Vec<[f64; 2]> {
    let mut line = vec![at(0)];
    for i in 0..stretches as isize {
        let [a, b, c, d] = [at(i - 1), at(i), at(i + 1), at(i + 2)];
        for piece in 1..=PIECES {
            let t = piece as f64 / PIECES as f64;
            let along = |k: usize| {
                let bend = 2.0 * a[k] - 5.0 * b[k] + 4.0 * c[k] - d[k];
                let twist = 3.0 * (b[k] - c[k]) + d[k] - a[k];
                b[k] + 0.5 * t * (c[k] - a[k] + t * (bend + t * twist))
            };
            line.push([along(0), along(1)]);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_is_drawn_within_its_width() {
        for line in SIGNS.lines() {
            let c = line.chars().next().unwrap();
            let (width, _) = sign(c);
            let lines = text(&c.to_string(), [0.0; 2], CAPITAL, Anchor::Start, false);
            for [x, y] in lines.concat() {
                assert!((-0.3..=width + 0.3).contains(&x), "{c}: {x}");
                assert!((-7.9..=2.2).contains(&y), "{c}: {y}");
            }
        }
        for c in (' '..='z').filter(|c| c.is_ascii_alphanumeric() || " .,-+=()_*/".contains(*c)) {
            assert_ne!(sign(c), UNKNOWN, "{c}");
        }
    }

    #[test]
    fn a_curve_goes_through_its_points() {
        let line = curve("~0,0 1,1 2,0");
        assert_eq!(
            (line[0], line[PIECES], line[2 * PIECES]),
            ([0.0, 0.0], [1.0, 1.0], [2.0, 0.0])
        );
        let closed = curve("o0,0 1,1 2,0");
        assert_eq!(closed.first(), closed.last());
    }

    #[test]
    fn a_text_begins_or_ends_at_its_place_and_turns_there() {
        let ends = |anchor, upward| {
            let points = text("II", [10.0, 20.0], CAPITAL, anchor, upward).concat();
            let along = || points.iter().map(|point| point[usize::from(upward)]);
            let low = along().fold(f64::INFINITY, f64::min);
            let high = along().fold(f64::NEG_INFINITY, f64::max);
            [low, high].map(|at| (at * 10.0).round() / 10.0)
        };
        assert_eq!(ends(Anchor::Start, false), [10.2, 12.2]);
        assert_eq!(ends(Anchor::End, false), [7.8, 9.8]);
        assert_eq!(ends(Anchor::Middle, false), [9.0, 11.0]);
        assert_eq!(ends(Anchor::Start, true), [17.8, 19.8]);
    }
}
