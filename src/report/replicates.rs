//! Mean, standard deviation and 95% interval of a few values, such as those of the seeds of one setting.

/// The mean of values and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replicates {
    /// How many values there are.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with n - 1; `None` of one value.
    pub deviation: Option<f64>,
    /// The 95% interval of the mean by Student's t distribution with n - 1 degrees of freedom; `None` of
    /// one value.
    pub interval: Option<[f64; 2]>,
}

/// The two-sided 5% points of Student's t for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
    2.262_157, 2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905,
    2.109_816, 2.100_922, 2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899,
    2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_230, 2.042_272,
];
/// The same of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Replicates {
    /// Of values; those that are not finite do not count. `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let finite: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        let count = finite.len();
        if count == 0 {
            return None;
        }
        let mean = finite.iter().sum::<f64>() / count as f64;
        let squares = finite
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>();
        let deviation = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        let interval = deviation.map(|deviation| {
            let half = t(count - 1) * deviation / (count as f64).sqrt();
            [mean - half, mean + half]
        });
        Some(Self {
            count,
            mean,
            deviation,
            interval,
        })
    }
}

/// The two-sided 5% point of Student's t; beyond the table by the expansion of Cornish and Fisher (1937).
fn t(freedom: usize) -> f64 {
    if let Some(known) = freedom.checked_sub(1).and_then(|at| T.get(at)) {
        return *known;
    }
    let v = freedom as f64;
    let [z3, z5, z7] = [3, 5, 7].map(|power| Z.powi(power));
    Z + (z3 + Z) / (4.0 * v)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * v * v)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / (384.0 * v * v * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: mean 3, squares 4 + 1 + 0 + 1 + 4, sd sqrt(10 / 4); t of 4 degrees is 2.776445.
    #[test]
    fn five_values_by_hand() {
        let spread = Replicates::of([1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!((spread.count, spread.mean), (5, 3.0));
        assert_eq!(spread.deviation, Some(2.5f64.sqrt()));
        let [low, high] = spread.interval.unwrap();
        let half = 2.776_445 * (2.5f64 / 5.0).sqrt();
        assert!((low - (3.0 - half)).abs() < 1e-12 && (high - (3.0 + half)).abs() < 1e-12);
    }

    #[test]
    fn one_value_has_no_interval_and_none_has_no_mean() {
        let one = Replicates::of([0.25, f64::NAN]).unwrap();
        assert_eq!((one.count, one.mean), (1, 0.25));
        assert_eq!((one.deviation, one.interval), (None, None));
        assert_eq!(Replicates::of([f64::INFINITY]), None);
    }

    /// Values by numeric integration of the density.
    #[test]
    fn quantiles_beyond_the_table_are_those_of_the_distribution() {
        for (freedom, want) in [
            (31, 2.039_513_4),
            (40, 2.021_075_4),
            (60, 2.000_297_8),
            (120, 1.979_930_4),
            (1000, 1.962_339_1),
        ] {
            assert!(
                (t(freedom) - want).abs() < 2e-6,
                "{freedom}: {}",
                t(freedom)
            );
        }
    }
}
