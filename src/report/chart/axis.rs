//! From values to places in a frame, and the ticks beside it.

/// One direction of a panel.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// The value at the frame's beginning.
    pub from: f64,
    /// The value at the frame's end.
    pub to: f64,
    /// Whether equal factors are equally far apart.
    pub log: bool,
}

impl Axis {
    /// With equal differences equally far apart.
    pub fn linear(label: &str, from: f64, to: f64) -> Self {
        Self {
            label: label.to_owned(),
            from,
            to,
            log: false,
        }
    }

    /// With equal factors equally far apart.
    pub fn log(label: &str, from: f64, to: f64) -> Self {
        Self {
            log: true,
            ..Self::linear(label, from, to)
        }
    }

    /// The same with a little room below, so that a curve at the lower end is not on the frame.
    #[must_use]
    pub fn with_room(self) -> Self {
        Self {
            from: self.from - 0.03 * (self.to - self.from),
            ..self
        }
    }

    /// 0 at the beginning, 1 at the end.
    pub(in crate::report) fn place(&self, value: f64) -> f64 {
        let [from, to, at] = [self.from, self.to, value].map(|x| match self.log {
            true => x.log10(),
            false => x,
        });
        (at - from) / (to - from)
    }

    /// Round values with short labels, all in one unit.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let ticks = match self.log {
            true => self.decades(),
            false => self.round_steps(),
        };
        let sizes = ticks.iter().map(|(value, _)| value.abs());
        let size = sizes.fold(0.0, f64::max);
        let (unit, word) = match size {
            size if self.log || size < 1e4 => (1.0, ""),
            size if size < 1e7 => (1e3, "k"),
            size if size < 1e10 => (1e6, "M"),
            _ => (1e9, "G"),
        };
        let label = |(value, text): (f64, String)| {
            let label = match () {
                () if value == 0.0 => "0".to_owned(),
                () if unit > 1.0 => format!("{}{word}", trimmed(format!("{:.3}", value / unit))),
                () if size < 1e-3 && !self.log => format!("{value:.2e}")
                    .replace(".00e", "e")
                    .replace("0e", "e"),
                () => text,
            };
            (value, label.replace('-', "−"))
        };
        ticks.into_iter().map(label).collect()
    }

    fn decades(&self) -> Vec<(f64, String)> {
        let first = (self.from.log10() - 1e-9).ceil() as i32;
        let last = (self.to.log10() + 1e-9).floor() as i32;
        let every = ((last - first) as usize / 8 + 1).max(1);
        let powers = (first..=last).step_by(every);
        let text = |power: i32| match power {
            -2..=3 => format!("{}", 10f64.powi(power)),
            _ => format!("1e{power}"),
        };
        powers
            .map(|power| (10f64.powi(power), text(power)))
            .collect()
    }

    /// Steps of 1, 2 or 5 times a power of ten.
    fn round_steps(&self) -> Vec<(f64, String)> {
        let rough = (self.to - self.from) / 5.0;
        // No digits would tell such ticks apart.
        if !(1e-300..1e300).contains(&rough) {
            return Vec::new();
        }
        let power = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|factor| factor * power >= rough * 0.999);
        let step = factor.unwrap_or(10.0) * power;
        let digits = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let first = (self.from / step - 1e-9).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        let tick = |n: i64| (n as f64 * step, format!("{:.digits$}", n as f64 * step));
        (first..=last).map(tick).collect()
    }
}

/// The room beyond values from `low` to `high`: a share of their range, or what makes one value a range.
pub fn room(low: f64, high: f64, share: f64) -> f64 {
    let size = high.abs().max(low.abs());
    match high - low {
        // Rounding alone is no difference worth a frame.
        range if range > 1e-9 * size && range > 1e-290 => share * range,
        _ if size > 1e-290 => 0.1 * size,
        _ => 1.0,
    }
}

/// Whether a value has a place: it is finite, and differences of such values are.
pub fn is_drawn(value: f64) -> bool {
    value.abs() < 1e300
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let texts = |axis: Axis| axis.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(Axis::linear("", 0.0, 1.0)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            texts(Axis::log("", 1e-5, 100.0)),
            ["1e−5", "1e−4", "1e−3", "0.01", "0.1", "1", "10", "100"]
        );
        assert_eq!(
            texts(Axis::linear("", -5.0, 5.0)),
            ["−4", "−2", "0", "2", "4"]
        );
    }
    #[test]
    fn labels_are_short() {
        let texts = |axis: Axis| axis.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(Axis::linear("", 0.0, 60_000.0)),
            ["0", "20k", "40k", "60k"]
        );
        assert_eq!(
            texts(Axis::linear("", 0.0, 1e-6)),
            ["0", "2e−7", "4e−7", "6e−7", "8e−7", "1e−6"]
        );
    }
}
