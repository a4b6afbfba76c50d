//! `expo eval alpaca`: AlpacaEval 2's figures.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use expo::error::Result;
use expo::eval::alpaca::{Annotations, FOLDS, Figures, difficulties, figures, gamed};
use serde_json::json;

use super::super::{answer, grouped, tell};

/// Compute AlpacaEval 2's win rates, the length-controlled one included, from its annotations.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct AlpacaArgs {
    /// Read AlpacaEval's annotations.json
    #[arg(long, value_name = "FILE")]
    annotations: PathBuf,

    /// Read the difficulty of each instruction, .csv or JSON
    #[arg(long, value_name = "FILE")]
    difficulty: Option<PathBuf>,

    /// Read the gamed rows, .csv or JSON; if they have `index`, their difficulties replace
    /// --difficulty
    #[arg(long, value_name = "FILE")]
    gamed: Option<PathBuf>,

    /// Seed the bootstrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print one JSON object: `win_rate`, `length_controlled_win_rate`, counts, regression
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Annotations are a JSON list, or JSON lines, of
  {\"instruction\", \"output_1\", \"output_2\", \"preference\", \"generator_1\",
   \"generator_2\", ...}
where output_2 is the model's, output_1 the baseline's, and preference - 1 is
the probability that output_2 is better: a number from 1 to 2; 0 is a draw, as
in older files; null counts in no win rate.

  win rate             100 mean(preference - 1)
  standard error       100 sd / sqrt(n), with n - 1 in the standard deviation
  discrete win rate    100 (wins + draws / 2) / n; a draw is a preference of 1.5
  length-controlled    100 mean over all annotations of sigma(a + b difficulty):
                       what a logistic regression says where both outputs are as
                       long

The regression is AlpacaEval's length_controlled_v1: no intercept; tanh((len_1 -
len_2) / sd) with lengths in characters and sd of the file's own differences,
which are not centred; the instruction's difficulty; and 1 for the model's rows,
0 for gamed ones, which weigh 0.1 each (0.2 over two gamed models). Targets are
soft. The penalty is |w|_1, beside C times the weighted log loss; C is one of
ten from 1e-4 to 1e4, by a cross-validation of five parts, those of
scikit-learn's GroupKFold. It is solved to the optimum, where liblinear stops
earlier.

  --difficulty  columns index (the annotation's place from 0; in .csv the first
                column may have no name) or instruction; instruction_difficulty.
                AlpacaEval's instruction_difficulty.csv is one.
  --gamed       columns preference in [0, 1], std_delta_len,
                instruction_difficulty; AlpacaEval's df_gamed.csv is one.
Both are files of the data set tatsu-lab/alpaca_eval on the hub. Without
difficulties the regression is of the length and the constant alone, and the
figure is not AlpacaEval's own.

Examples:
  $ expo eval alpaca --annotations annotations.json --gamed df_gamed.csv
  $ expo eval alpaca --annotations annotations.json \\
      --difficulty instruction_difficulty.csv --json";

/// Runs the command.
pub fn run(args: &AlpacaArgs) -> anyhow::Result<()> {
    let figures = evaluate(args)?;
    answer(&match args.json {
        true => format!("{}\n", json!(figures)),
        false => table(&figures),
    })
}

fn evaluate(args: &AlpacaArgs) -> Result<Figures> {
    let annotations = Annotations::open(&args.annotations)?;
    let rows = args.gamed.as_deref().map(gamed).transpose()?;
    let source = args.difficulty.as_ref().or(args.gamed.as_ref());
    let of_file = |path: &PathBuf| {
        let found = difficulties(path)?.of(&annotations.rows);
        found.map_err(|error| error.at(path.display()))
    };
    let difficulty = source.map(of_file).transpose()?;
    let missing = match (&difficulty, &rows) {
        (None, _) => Some("without --difficulty the regression has no term for it"),
        (_, None) => Some("without --gamed the regression is of the annotations alone"),
        _ => None,
    };
    if let Some(missing) = missing {
        tell(format!(
            "{missing}: the length-controlled win rate is not AlpacaEval's own"
        ));
    }
    let rows = rows.unwrap_or_default();
    let figures = figures(&annotations, difficulty.as_deref(), &rows, args.seed);
    figures.map_err(|error| error.at(args.annotations.display()))
}

fn table(figures: &Figures) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String, remark: String| {
        let line = format!("{name:<22}{value:>9}  {remark}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let none = String::new;
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    line("model", none(), name(&figures.model));
    line("baseline", none(), name(&figures.baseline));
    let without = match figures.without_preference {
        0 => none(),
        without => format!("{} more without a preference", grouped(without)),
    };
    line("annotations", grouped(figures.annotations), without);
    let error = figures
        .standard_error
        .map_or(none(), |error| format!("standard error {error:.2}  "));
    let interval = figures.bootstrap.map_or(none(), |interval| {
        format!("bootstrap [{:.2}, {:.2}]", interval.low, interval.high)
    });
    line(
        "win rate",
        format!("{:.2}", figures.win_rate),
        format!("{error}{interval}"),
    );
    let counts = format!(
        "{} wins, {} losses, {} draws",
        grouped(figures.wins),
        grouped(figures.losses),
        grouped(figures.draws)
    );
    line(
        "discrete win rate",
        format!("{:.2}", figures.discrete_win_rate),
        counts,
    );
    let how = match (&figures.regression, figures.length_controlled_win_rate) {
        (None, None) => format!("takes {FOLDS} preferences or gamed rows at least"),
        (None, Some(_)) => "model and baseline are one".into(),
        (Some(regression), _) => {
            let difficulty = regression.difficulty;
            let difficulty = difficulty.map_or(none(), |w| format!("difficulty {w:.4}, "));
            format!(
                "length {:.4}, {difficulty}not gamed {:.4}; C {:.4}, {} gamed rows",
                regression.length,
                regression.not_gamed,
                regression.c,
                grouped(regression.gamed)
            )
        }
    };
    line(
        "length-controlled",
        figures
            .length_controlled_win_rate
            .map_or("-".into(), |rate| format!("{rate:.2}")),
        how,
    );
    line(
        "mean length",
        format!("{:.1}", figures.mean_length),
        "characters".into(),
    );
    line(
        "  of the baseline",
        format!("{:.1}", figures.baseline_length),
        none(),
    );
    text
}
