//! What came out, as tables.

use std::fmt::Write;
use std::path::Path;

use expo::eval::figure::Figure;
use expo::eval::pairs::{Margins, QUANTILES, Report};
use expo::report::{Cell, Table, significant};

use crate::cli::error::flag;
use crate::cli::grouped;

/// The tables of a report.
pub fn text(report: &Report, out: Option<&Path>) -> anyhow::Result<String> {
    let mut text = String::new();
    let soft = match report.soft_labels {
        0 => String::new(),
        rows => format!(", {} with soft labels", grouped(rows)),
    };
    writeln!(text, "{} pairs{soft}\n", grouped(report.rows))?;

    let mut losses = Table::new("losses", ["loss", "mean", "low", "high"]);
    for loss in &report.losses {
        losses.push(row(&loss.loss, &loss.mean));
    }
    text += &losses.to_text();
    for left in &report.left_out {
        write!(text, "without {}: it {}", left.loss, left.why)?;
        match left.parameter {
            Some("loss") => writeln!(text, ": --loss {}", left.loss)?,
            Some(parameter) => writeln!(text, ": {}", flag(parameter))?,
            None => writeln!(text)?,
        }
    }

    let mut margins = Table::new("margins", ["", "value", "low", "high"]);
    section(&mut margins, "d", "log pi", &report.policy);
    if let Some(reward) = &report.reward {
        section(&mut margins, "h", "rho", reward);
    }
    if let Some(moved) = &report.displacement {
        margins.push(row("chosen fell", &moved.chosen_fell));
        margins.push(row("rejected fell", &moved.rejected_fell));
        margins.push(row("both fell", &moved.both_fell));
    }
    writeln!(text, "\n{}", margins.to_text())?;

    let names = QUANTILES.map(|share| match share {
        0.0 => "least".to_owned(),
        0.5 => "median".to_owned(),
        1.0 => "greatest".to_owned(),
        share => format!("{:.0}%", 100.0 * share),
    });
    let columns = ["quantiles of".to_owned()].into_iter().chain(names);
    let mut quantiles = Table::new("quantiles", columns);
    for (name, margins) in [("d", Some(&report.policy)), ("h", report.reward.as_ref())] {
        if let Some(margins) = margins {
            let cells = margins.quantiles.iter().map(|x| Cell::from(*x));
            quantiles.push([name.into()].into_iter().chain(cells).collect());
        }
    }
    writeln!(text, "{}", quantiles.to_text())?;

    for calibration in &report.calibration {
        let beta = match calibration.predicted.contains("beta") {
            true => format!(", beta = {}", report.beta),
            false => String::new(),
        };
        writeln!(
            text,
            "p = {}{beta}: Brier score {}, log loss {}, ECE {}",
            calibration.predicted,
            calibration.brier,
            calibration.log_loss,
            significant(calibration.expected_calibration_error),
        )?;
        let mut bins = Table::new("bins", ["confidence", "pairs", "mean", "right"]);
        for bin in calibration.bins.iter().filter(|bin| bin.count > 0) {
            let range = format!("{:.2}-{:.2}", bin.from, bin.to);
            let count = bin.count as f64;
            bins.push(vec![
                range.into(),
                count.into(),
                bin.confidence.into(),
                bin.right.into(),
            ]);
        }
        writeln!(text, "{}", bins.to_text())?;
    }

    let of = if report.reward.is_some() { "h" } else { "d" };
    let columns = ["n_w - n_l", "pairs", "accuracy", "low", "high", "margin"];
    let mut lengths = Table::new("lengths", columns);
    for bucket in &report.lengths {
        let [_, accuracy, low, high] = cells("", &bucket.accuracy);
        lengths.push(vec![
            format!("{} to {}", bucket.from, bucket.to).into(),
            (bucket.rows as f64).into(),
            accuracy,
            low,
            high,
            bucket.margin.value.into(),
        ]);
    }
    writeln!(text, "by length, of {of}\n{}", lengths.to_text())?;
    let draws = grouped(report.bootstrap.count);
    writeln!(
        text,
        "low, high: 95% intervals, bootstrap over rows, {draws} draws"
    )?;
    if let Some(out) = out {
        writeln!(text, "output {}", out.display())?;
    }
    Ok(text)
}

fn section(table: &mut Table, margin: &str, quantity: &str, of: &Margins) {
    for (name, figure) in [
        (format!("accuracy, {margin} > 0"), &of.accuracy),
        ("  per token".to_owned(), &of.accuracy_per_token),
        (format!("margin {margin}"), &of.margin),
        ("  per token".to_owned(), &of.margin_per_token),
        (format!("{quantity} of chosen"), &of.chosen),
        (format!("{quantity} of rejected"), &of.rejected),
    ] {
        table.push(row(&name, figure));
    }
}

fn cells(name: &str, figure: &Figure) -> [Cell; 4] {
    let bounds = figure.interval.map(|bounds| (bounds.low, bounds.high));
    [
        name.into(),
        figure.value.into(),
        bounds.map(|bounds| bounds.0).into(),
        bounds.map(|bounds| bounds.1).into(),
    ]
}

fn row(name: &str, figure: &Figure) -> Vec<Cell> {
    cells(name, figure).to_vec()
}
