//! Names in safetensors files: NVIDIA's, or those that transformers 5 uses in memory.
//!
//! transformers renames `backbone.` to `model.` and stacks the experts of a layer into
//! `mixer.experts.up_proj` (experts, width, input) and `mixer.experts.down_proj`
//! (`conversion_mapping.py`, entry `nemotron_h`). Saving undoes both, but files written without that step exist.

/// The checkpoint name of a tensor.
pub(crate) fn canonical(name: &str) -> String {
    let name = match name.strip_prefix("model.") {
        Some(rest) => format!("backbone.{rest}"),
        None => name.to_string(),
    };
    if name == "backbone.embedding.weight" { "backbone.embeddings.weight".to_string() } else { name }
}

/// If `name` is a stack of experts: what comes before and after the number in the name of one expert.
pub(super) fn expert_stack(name: &str) -> Option<(&str, &str)> {
    let (layer, projection) = name.split_once(".experts.")?;
    matches!(projection, "up_proj" | "down_proj").then_some((layer, projection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transformers_become_nvidias() {
        assert_eq!(canonical("model.layers.0.norm.weight"), "backbone.layers.0.norm.weight");
        assert_eq!(canonical("model.embedding.weight"), "backbone.embeddings.weight");
        assert_eq!(canonical("backbone.norm_f.weight"), "backbone.norm_f.weight");
        assert_eq!(canonical("lm_head.weight"), "lm_head.weight");
        assert_eq!(
            expert_stack("backbone.layers.1.mixer.experts.up_proj"),
            Some(("backbone.layers.1.mixer", "up_proj"))
        );
        assert_eq!(expert_stack("backbone.layers.1.mixer.experts.3.up_proj.weight"), None);
        assert_eq!(expert_stack("backbone.layers.1.mixer.up_proj.weight"), None);
    }
}
