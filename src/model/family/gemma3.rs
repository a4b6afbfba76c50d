//! Gemma 3 (Gemma Team 2025), its models of text and images: the part that reads text is trained, the others
//! are kept as they are.

use super::Family;
use super::gemma3_text;
use super::keys::{self, Key};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma3",
    class: "Gemma3ForConditionalGeneration",
    architecture,
    keys: &[
        ("boi_token_index", Key::Ignored),
        ("eoi_token_index", Key::Ignored),
        ("image_token_index", Key::Ignored),
        ("mm_tokens_per_image", Key::Ignored),
        ("text_config", Key::Read),
        ("vision_config", Key::Ignored),
        ("vocab_size", Key::Ignored),
    ],
    ignored: gemma3_text::FAMILY.ignored,
    spelling: &[
        ("model.language_model.", "language_model.model."),
        ("lm_head", "language_model.lm_head"),
    ],
    kept: &[
        "model.multi_modal_projector.",
        "model.vision_tower.",
        "multi_modal_projector.",
        "vision_tower.",
    ],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    const CAP: &str = "final_logit_softcapping";
    let text = config.section("text_config")?;
    text.require("model_type", gemma3_text::FAMILY.model_type)?;
    keys::check(&gemma3_text::FAMILY, &text)?;
    let mut arch = gemma3_text::architecture(&text)?;
    if arch.logit_softcap.is_some() {
        let why = "in transformers this class has no soft cap of its logits";
        return Err(text.unsupported(CAP, why));
    }
    arch.rename("model.", "model.language_model.");
    Ok(Architecture {
        tied: config.bool_or("tie_word_embeddings", true)?,
        ..arch
    })
}
