//! Trains the tiny model with a loss that expo does not have: DPO whose pairs count less the better
//! the policy already tells them apart, as in the focal loss of Lin et al. 2017.
//!
//! Run from the repository's root:
//!
//! ```sh
//! cargo run --release --example custom_loss
//! ```

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;

use expo::config::Config;
use expo::error::Result;
use expo::loss::{About, Dual, Knob, KnobValue, Knobs, Loss, MarginLoss, Range, Response};
use expo::session::Event;
use expo::train::{Opened, Resume, Run};

/// L = -(1 - sigma(beta h))^gamma log sigma(beta h), with h = rho_w - rho_l.
#[derive(Debug)]
pub struct Focal {
    /// Weight of the KL to the reference.
    pub beta: f64,
    /// How much less a pair counts that is told apart; at 0 the loss is DPO's.
    pub gamma: f64,
}

/// Name and value of each knob are recorded, and compared when the run is resumed.
impl Knobs for Focal {
    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob {
                name: "beta",
                range: Range::POSITIVE,
                meaning: "Weight of the KL to the reference.",
            },
            Knob {
                name: "gamma",
                range: Range::NON_NEGATIVE,
                meaning: "How much less a pair counts that is told apart.",
            },
        ]
    }

    fn values(&self) -> Vec<KnobValue> {
        vec![self.beta.into(), self.gamma.into()]
    }
}

/// A loss of a pair's margin. One of pairs implements `PairLoss`, any other one `Objective`.
impl MarginLoss for Focal {
    const ABOUT: About = About {
        formula: "L = -(1 - sigma(beta h))^gamma log sigma(beta h),    h = rho_w - rho_l",
        paper: "after Lin et al. 2017 (arXiv 1708.02002)",
        config: "configs/tiny.toml",
    };

    // A `Dual` carries its gradient along.
    fn of(&self, margin: Dual) -> Dual {
        let z = self.beta * margin;
        let wrong = self.gamma * (-z.clone()).log_sigmoid();
        -(wrong.exp() * z.log_sigmoid())
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

/// Opens a run of the tiny model into `output_dir`, or the one that is there.
pub fn open(focal: Focal, output_dir: &Path, max_steps: u64) -> Result<Opened> {
    let settings = [
        format!("run.output_dir={output_dir:?}"),
        format!("run.max_steps={max_steps}"),
        "run.overwrite=false".into(),
    ];
    let config = Config::open(Path::new("configs/tiny.toml"), &settings)?;
    let config = config.with_loss(Loss::custom("focal", Arc::new(focal)))?;
    Run::open_with(config, &Resume::Auto, &[], &mut |_| {})
}

fn main() -> Result<()> {
    let focal = Focal {
        beta: 0.1,
        gamma: 2.0,
    };
    match open(focal, Path::new("runs/custom_loss"), 20)? {
        Opened::Run(run) => {
            run.train(&mut |event| {
                if let Event::Record(record) = event {
                    println!("{record:?}");
                }
            })?;
        }
        Opened::Finished(summary) => println!("finished before: {} steps", summary.steps),
    }
    Ok(())
}
