//! The objectives, one per file: paper, formula, knobs.
//!
//! *Why*: the one table of losses. A new one is its file, its `mod` line and its row in `losses!`;
//! the config section, the command line, the messages, the pages and the contract tests follow.

mod aot;
mod aot_unpaired;
mod apo_down;
mod apo_zero;
mod bco;
mod cexpo;
mod cpo;
mod discopop;
mod dpo;
mod dpop;
mod exo_pair;
mod fdpo;
mod gpo;
mod hinge;
mod ipo;
mod ipo_learned;
mod kto;
mod ld_dpo;
mod nca;
mod odpo;
mod orpo;
mod qpo;
mod rdpo;
mod rexpo;
mod robust;
mod sft;
mod sigmoid_norm;
mod simpo;
mod sppo_hard;
mod wpo;

pub use cexpo::Unsupervised;
pub use gpo::Shape;
pub use qpo::Psi;

use super::list::losses;

losses! {
    /// cEXPO, compositional EXPO.
    "cexpo" | "typo" => cexpo::Cexpo,
    /// rEXPO, regression EXPO.
    "rexpo" => rexpo::Rexpo,
    /// DPO, and cDPO with label smoothing.
    "dpo" => dpo::Dpo,
    /// IPO.
    "ipo" => ipo::Ipo,
    /// f-DPO: DPO under another divergence.
    "fdpo" => fdpo::Fdpo,
    /// SimPO.
    "simpo" => simpo::Simpo,
    /// KTO, for single answers labelled good or bad.
    "kto" => kto::Kto,
    /// Supervised fine-tuning.
    "sft" => sft::Sft,
    /// The hinge of SLiC on DPO's margin.
    "hinge" | "slic" => hinge::Hinge,
    /// Robust DPO: unbiased under flipped labels.
    "robust" => robust::Robust,
    /// EXO on pairs: the reverse KL to the label.
    "exo_pair" => exo_pair::ExoPair,
    /// NCA on pairs: noise contrastive alignment.
    "nca" | "nca_pair" => nca::Nca,
    /// BCO on pairs: a binary classifier.
    "bco" | "bco_pair" => bco::Bco,
    /// SPPO with hard labels.
    "sppo_hard" => sppo_hard::SppoHard,
    /// IPO with a learned target.
    "ipo_learned" => ipo_learned::IpoLearned,
    /// AOT: sorted margins against the reference's.
    "aot" | "aot_pair" => aot::Aot,
    /// AOT without pairs: sorted chosen against rejected.
    "aot_unpaired" | "aot_unpair" => aot_unpaired::AotUnpaired,
    /// APO-zero: chosen up, rejected down.
    "apo_zero" => apo_zero::ApoZero,
    /// APO-down: both down, the rejected further.
    "apo_down" => apo_down::ApoDown,
    /// DiscoPOP, the log-ratio modulated loss.
    "discopop" => discopop::Discopop,
    /// Length-normalised DPO.
    "sigmoid_norm" => sigmoid_norm::SigmoidNorm,
    /// ORPO: SFT with an odds ratio.
    "orpo" => orpo::Orpo,
    /// CPO: DPO without a reference, with SFT.
    "cpo" => cpo::Cpo,
    /// R-DPO: DPO with a penalty on length.
    "rdpo" | "r-dpo" => rdpo::Rdpo,
    /// DPO-Positive.
    "dpop" => dpop::Dpop,
    /// ODPO: DPO with an offset from scores.
    "odpo" => odpo::Odpo,
    /// GPO: any decreasing function of DPO's margin.
    "gpo" => gpo::Gpo,
    /// QPO: the family that the EXPO papers analyse.
    "qpo" => qpo::Qpo,
    /// WPO: DPO with pairs weighted by the policy.
    "wpo" => wpo::Wpo,
    /// LD-DPO: DPO with less weight on extra length.
    "ld_dpo" | "ld-dpo" => ld_dpo::LdDpo,
}
