//! GPUs by name: their memory and rates.
//!
//! Memory is what CUDA reports, in GiB. The bandwidth is the data sheet's. The TFLOP/s of an h200 in bf16
//! are what large matmuls reach, 790 of the data sheet's 989; the others are the same share, 0.8, of the
//! data sheet's figure for dense operands accumulated in f32, which stands above each card.

use crate::error::{Error, Result};

/// A GPU by name.
pub(super) struct Card {
    /// Its name.
    pub name: &'static str,
    /// Other names, normalized.
    aliases: &'static [&'static str],
    /// GiB.
    pub memory: f64,
    /// TFLOP/s of large matmuls with bf16 operands (fp16 on cards without bf16).
    pub bf16: f64,
    /// TFLOP/s of large matmuls with f32 operands.
    pub f32: f64,
    /// TB/s.
    pub bandwidth: f64,
    /// The compute capability; `None` where it is not an NVIDIA GPU.
    capability: Option<&'static str>,
}

const fn card(
    name: &'static str,
    aliases: &'static [&'static str],
    memory: f64,
    [bf16, f32]: [f64; 2],
    bandwidth: f64,
    capability: Option<&'static str>,
) -> Card {
    Card {
        name,
        aliases,
        memory,
        bf16,
        f32,
        bandwidth,
        capability,
    }
}

/// The cards, consumer cards first.
#[rustfmt::skip]
pub(super) const CARDS: [Card; 35] = [
    // 25.5 and 12.7 TFLOP/s.
    card("rtx-3060", &["rtx306012gb"], 11.7, [20.4, 10.2], 0.36, Some("8.6")),
    // 40.6 and 20.3 TFLOP/s.
    card("rtx-3070", &["rtx30708gb"], 7.7, [32.5, 16.2], 0.448, Some("8.6")),
    // 59.5 and 29.8 TFLOP/s.
    card("rtx-3080-10gb", &[], 9.7, [47.6, 23.8], 0.76, Some("8.6")),
    // 61.3 and 30.6 TFLOP/s.
    card("rtx-3080-12gb", &[], 11.7, [49.0, 24.5], 0.912, Some("8.6")),
    // 71.2 and 35.6 TFLOP/s.
    card("rtx-3090", &["rtx309024gb"], 23.6, [57.0, 28.5], 0.936, Some("8.6")),
    // 30.2 and 15.1 TFLOP/s.
    card("rtx-4060", &["rtx40608gb"], 7.7, [24.2, 12.1], 0.272, Some("8.9")),
    // 44.1 and 22.1 TFLOP/s.
    card("rtx-4060-ti-8gb", &[], 7.7, [35.3, 17.7], 0.288, Some("8.9")),
    // 44.1 and 22.1 TFLOP/s.
    card("rtx-4060-ti-16gb", &[], 15.6, [35.3, 17.7], 0.288, Some("8.9")),
    // 58.3 and 29.1 TFLOP/s.
    card("rtx-4070", &["rtx407012gb"], 11.6, [46.6, 23.3], 0.504, Some("8.9")),
    // 80.2 and 40.1 TFLOP/s.
    card("rtx-4070-ti", &["rtx4070ti12gb"], 11.6, [64.2, 32.1], 0.504, Some("8.9")),
    // 97.5 and 48.7 TFLOP/s.
    card("rtx-4080", &["rtx408016gb"], 15.6, [78.0, 39.0], 0.717, Some("8.9")),
    // 165.2 and 82.6 TFLOP/s.
    card("rtx-4090", &["rtx409024gb"], 23.5, [132.0, 66.1], 1.008, Some("8.9")),
    // 61.7 and 30.9 TFLOP/s.
    card("rtx-5070", &["rtx507012gb"], 11.5, [49.4, 24.7], 0.672, Some("12.0")),
    // 87.9 and 43.9 TFLOP/s.
    card("rtx-5070-ti", &["rtx5070ti16gb"], 15.5, [70.3, 35.1], 0.896, Some("12.0")),
    // 112.6 and 56.3 TFLOP/s.
    card("rtx-5080", &["rtx508016gb"], 15.5, [90.1, 45.0], 0.96, Some("12.0")),
    // 209.5 and 104.8 TFLOP/s.
    card("rtx-5090", &["rtx509032gb"], 31.3, [168.0, 83.8], 1.792, Some("12.0")),
    // 65 and 8.1 TFLOP/s.
    card("t4", &["t416gb"], 14.6, [52.0, 6.48], 0.32, Some("7.5")),
    // 125 and 15.7 TFLOP/s.
    card("v100-16gb", &["v100sxm216gb", "v100pcie16gb"], 15.8, [100.0, 12.6], 0.9, Some("7.0")),
    // 125 and 15.7 TFLOP/s.
    card("v100-32gb", &["v100sxm232gb", "v100pcie32gb"], 31.7, [100.0, 12.6], 0.9, Some("7.0")),
    // 125 and 31.2 TFLOP/s.
    card("a10", &["a1024gb"], 22.0, [100.0, 25.0], 0.6, Some("8.6")),
    // 70 and 35 TFLOP/s.
    card("a10g", &["a10g24gb"], 22.0, [56.0, 28.0], 0.6, Some("8.6")),
    // 154.8 and 38.7 TFLOP/s.
    card("a6000", &["rtxa6000", "rtxa600048gb"], 47.4, [124.0, 31.0], 0.768, Some("8.6")),
    // 121 and 30.3 TFLOP/s.
    card("l4", &["l424gb"], 22.0, [96.8, 24.2], 0.3, Some("8.9")),
    // 181 and 90.5 TFLOP/s.
    card("l40", &["l4048gb"], 44.3, [145.0, 72.4], 0.864, Some("8.9")),
    // 362 and 91.6 TFLOP/s.
    card("l40s", &["l40s48gb"], 44.0, [290.0, 73.3], 0.864, Some("8.9")),
    // 364.2 and 91.1 TFLOP/s.
    card("rtx-6000-ada", &["rtx6000adageneration"], 47.4, [291.0, 72.9], 0.96, Some("8.9")),
    // 503.8 and 125 TFLOP/s.
    card("rtx-pro-6000", &["rtx6000pro", "rtxpro6000blackwell", "rtxpro6000blackwellworkstationedition", "rtxpro6000blackwellserveredition"], 94.9, [403.0, 100.0], 1.792, Some("12.0")),
    // 312 and 19.5 TFLOP/s.
    card("a100-40gb", &["a100sxm440gb", "a100sxm40gb", "a100pcie40gb"], 39.4, [250.0, 15.6], 1.555, Some("8.0")),
    // 312 and 19.5 TFLOP/s.
    card("a100-80gb", &["a100sxm480gb", "a100sxm80gb", "a10080gbpcie", "a100pcie80gb"], 79.0, [250.0, 15.6], 2.039, Some("8.0")),
    // 989 and 67 TFLOP/s.
    card("h100", &["h100sxm", "h100sxm5", "h10080gb", "h10080gbhbm3"], 79.0, [790.0, 53.6], 3.35, Some("9.0")),
    // 756 and 51 TFLOP/s.
    card("h100-pcie", &["h10080gbpcie"], 79.0, [605.0, 40.8], 2.0, Some("9.0")),
    // 990 and 67 TFLOP/s.
    card("gh200", &["gh20096gb", "gh200480gb"], 94.5, [792.0, 53.6], 4.0, Some("9.0")),
    // 989 and 67 TFLOP/s.
    card("h200", &["h200sxm", "h200141gb"], 139.0, [790.0, 53.6], 4.8, Some("9.0")),
    // 2250 and 75 TFLOP/s.
    card("b200", &["b200180gb", "b200sxm"], 178.3, [1800.0, 60.0], 8.0, Some("10.0")),
    // 1307 and 163.4 TFLOP/s.
    card("mi300x", &["mi300x192gb"], 191.5, [1050.0, 131.0], 5.3, None),
];

/// Words around a card's name that do not tell cards apart.
const MAKERS: [&str; 5] = ["nvidia", "geforce", "tesla", "instinct", "amd"];

impl Card {
    /// The card of this name, whatever its case, dashes and spaces: `RTX 4090`, `4090` and
    /// `NVIDIA GeForce RTX 4090` are one.
    ///
    /// # Errors
    /// Names the cards of which this is the beginning, or else all.
    pub fn find(name: &str) -> Result<&'static Self> {
        let plain = normalized(name);
        let is =
            |card: &Self, word: &str| normalized(card.name) == word || card.aliases.contains(&word);
        let words = ["", "gb"].map(|end| [format!("{plain}{end}"), format!("rtx{plain}{end}")]);
        for word in words.as_flattened() {
            if let Some(card) = CARDS.iter().find(|card| is(card, word)) {
                return Ok(card);
            }
        }
        let begins = |card: &&Self| {
            let of_card = normalized(card.name);
            !plain.is_empty() && (of_card.starts_with(&plain) || of_card.starts_with(&words[0][1]))
        };
        let near: Vec<&str> = CARDS.iter().filter(begins).map(|card| card.name).collect();
        let hint = match &near[..] {
            [] => {
                let all: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
                format!(
                    "valid: {}; for another give its memory and rates",
                    all.join(", ")
                )
            }
            near => format!("did you mean {}?", near.join(" or ")),
        };
        let error = Error::input(format!("unknown GPU `{name}`")).hint(hint);
        Err(match near.is_empty() {
            true => error
                .option("memory", "")
                .option("tflops", "")
                .option("bandwidth", ""),
            false => error,
        })
    }

    /// Why expo does not run on the card; `None` where it does.
    pub fn unsupported(&self) -> Option<String> {
        let name = self.name;
        let Some(capability) = self.capability else {
            return Some(format!(
                "expo does not run on {name}: it needs an NVIDIA GPU. The figures are for comparison"
            ));
        };
        let (major, _) = capability.split_once('.').unwrap_or((capability, ""));
        (major.parse::<u32>().unwrap_or(0) < 8).then(|| {
            format!(
                "expo does not run on {name}: it needs compute capability 8.0 or higher, and the card has \
                 {capability}. The figures are for comparison"
            )
        })
    }
}

/// Small letters and digits of a name, without its maker.
fn normalized(name: &str) -> String {
    let signs = name.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = signs.map(|sign| sign.to_ascii_lowercase()).collect();
    let mut rest = plain.as_str();
    while let Some(short) = MAKERS.iter().find_map(|maker| rest.strip_prefix(maker)) {
        rest = short;
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_written() {
        for (written, name) in [
            ("RTX 4090", "rtx-4090"),
            ("4090", "rtx-4090"),
            ("NVIDIA GeForce RTX 3080 10GB", "rtx-3080-10gb"),
            ("rtx_3080_12", "rtx-3080-12gb"),
            ("4060 Ti 16GB", "rtx-4060-ti-16gb"),
            ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
            ("a100 40", "a100-40gb"),
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("H100-PCIe", "h100-pcie"),
            ("Tesla T4", "t4"),
            ("NVIDIA RTX A6000", "a6000"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
            ("AMD Instinct MI300X", "mi300x"),
        ] {
            assert_eq!(Card::find(written).unwrap().name, name, "{written}");
        }
    }

    #[test]
    fn no_two_cards_share_a_name() {
        let names = CARDS.iter().flat_map(|card| {
            let own = normalized(card.name);
            card.aliases
                .iter()
                .map(|alias| (*alias).to_owned())
                .chain([own])
        });
        let mut names: Vec<String> = names.collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn an_ambiguous_name_is_told_the_cards_that_it_may_be() {
        let message = |name| Card::find(name).err().unwrap().to_string();
        assert!(message("a100").ends_with("did you mean a100-40gb or a100-80gb?"));
        assert!(message("3080").ends_with("did you mean rtx-3080-10gb or rtx-3080-12gb?"));
        for unknown in ["h201", "", "nvidia"] {
            let message = message(unknown);
            assert!(
                CARDS.iter().all(|card| message.contains(card.name)),
                "{message}"
            );
        }
    }

    #[test]
    fn old_cards_and_those_of_other_makers_are_said_to_be_unsupported() {
        let is = |name: &str| Card::find(name).unwrap().unsupported().is_none();
        assert_eq!(["t4", "v100-16gb", "mi300x"].map(is), [false; 3]);
        assert_eq!(["a100-40gb", "rtx-3060", "rtx-5090"].map(is), [true; 3]);
    }
}
