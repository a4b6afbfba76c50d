use super::*;

#[test]
fn all_linear_is_every_linear_layer_but_the_head() {
    let found = |name: &str, text: &str| resolved(name, text).unwrap().layers;
    for (name, count) in [
        ("llama", 14),
        ("neox", 8),
        ("gpt2", 8),
        ("phi3", 8),
        ("qwen3_moe", 12),
    ] {
        let all = found(name, "");
        assert_eq!(all.len(), count, "{name}");
        assert!(
            all.iter()
                .all(|l| (l.rank, l.scale, l.dora) == (8, 1.0, false))
        );
    }
    let split = |text: &str| found("llama", text).len();
    assert_eq!(split("target_modules = 'attention'"), 8);
    assert_eq!(split("target_modules = 'mlp'"), 6);
}

#[test]
fn patterns_decide_rank_and_alpha_in_their_order() {
    let adapter = resolved(
        "llama",
        r#"
        r = 4
        alpha = 8
        target_modules = ["q_proj", "v_proj"]
        rank_pattern = { "layers.1.self_attn.q_proj" = 2, "q_proj" = 16 }
        alpha_pattern = { 'layers\.\d+\.self_attn\.v_proj' = 1 }
        "#,
    );
    assert_eq!(
        layers(&adapter.unwrap()),
        [
            "model.layers.0.self_attn.q_proj 16 0.5",
            "model.layers.0.self_attn.v_proj 4 0.25",
            "model.layers.1.self_attn.q_proj 2 4",
            "model.layers.1.self_attn.v_proj 4 0.25",
        ]
    );
    let rslora = resolved("llama", "r = 4\nalpha = 4\nuse_rslora = true").unwrap();
    assert!(rslora.layers.iter().all(|layer| layer.scale == 2.0));
}

#[test]
fn layers_are_chosen_by_number_and_excluded_by_name() {
    let adapter = resolved(
        "neox",
        r#"
        target_modules = "all-linear"
        exclude_modules = '.*\.mlp\..*'
        layers_to_transform = 1
        "#,
    );
    assert_eq!(
        layers(&adapter.unwrap()),
        [
            "gpt_neox.layers.1.attention.dense 8 1",
            "gpt_neox.layers.1.attention.query_key_value 8 1",
        ]
    );
}

#[test]
fn a_module_that_is_saved_has_no_adapter() {
    let adapter = resolved(
        "neox",
        "target_modules = ['dense', 'lm_head']\nmodules_to_save = ['embed_out', 'final_layer_norm']",
    );
    let adapter = adapter.unwrap();
    assert_eq!(layers(&adapter).len(), 2);
    assert_eq!(
        adapter.saved,
        [
            "embed_out.weight",
            "gpt_neox.final_layer_norm.bias",
            "gpt_neox.final_layer_norm.weight"
        ]
    );
    let head = resolved("neox", "target_modules = ['embed_out']").unwrap();
    assert_eq!(layers(&head), ["embed_out 8 1"]);
    let head = resolved("llama3", "target_modules = ['lm_head']").unwrap();
    assert_eq!(layers(&head), ["lm_head 8 1"]);
    let tied = resolved("llama3", "modules_to_save = ['lm_head']").unwrap();
    assert_eq!(tied.saved, ["lm_head.weight"]);
}

#[test]
fn what_selects_nothing_is_an_error() {
    for (name, text, said) in [
        (
            "llama",
            "target_modules = ['q_prj']",
            "did you mean `q_proj`?",
        ),
        (
            "llama",
            "target_modules = ['q_proj', 'c_attn']",
            "\"c_attn\" matches no module",
        ),
        (
            "llama",
            "target_modules = 'q_proj'",
            "for its end: [\"q_proj\"]",
        ),
        (
            "llama",
            "target_modules = ['all-linear']",
            "a shorthand stands alone",
        ),
        (
            "llama",
            "target_modules = ['embed_tokens']",
            "modules_to_save trains it whole",
        ),
        (
            "llama",
            "target_modules = '.*norm.*'",
            "a norm has no matrix",
        ),
        ("mixtral", "target_modules = ['gate']", "experts"),
        ("mixtral", "target_modules = 'mlp'", "experts"),
        (
            "mixtral",
            "modules_to_save = ['experts']",
            "experts are not trained beside",
        ),
        ("llama", "exclude_modules = ['x_proj']", "[exclude_modules]"),
        ("llama", "exclude_modules = '.*'", "no layer is left"),
        (
            "llama",
            "layers_to_transform = [0, 2]",
            "there is no layer 2",
        ),
        (
            "llama",
            "rank_pattern = { q_pro = 2 }",
            "decides for no layer",
        ),
        (
            "llama",
            "rank_pattern = { q_proj = 2, 'self_attn.q_proj' = 4 }",
            "put it first",
        ),
        (
            "llama",
            "modules_to_save = ['lmhead']",
            "did you mean `lm_head`?",
        ),
    ] {
        let error = resolved(name, text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn values_out_of_range_are_errors() {
    for (text, said) in [
        ("r = 0", "r must be in [1, 65536] (got 0)"),
        ("alpha = 0", "alpha must be > 0"),
        ("dropout = 1.0", "dropout must be in [0, 1)"),
        ("rank_pattern = { q_proj = 0 }", "rank_pattern must be in"),
        ("target_modules = []", "the list is empty"),
        ("target_modules = '(?!a)b'", "no regex"),
        ("layers_to_transform = []", "layers_to_transform is empty"),
        ("reference = 'start'", "needs `from`"),
        ("from = 'x'\ninit = 'gaussian'", "init is for a new adapter"),
    ] {
        let error = config(text).validate().unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn what_continues_an_adapter_must_agree_with_it() {
    let folder = config("r = 4\nalpha = 8\ntarget_modules = ['q_proj']\ndropout = 0.1");
    let section = config("from = 'x'\nr = 4\ndropout = 0.0");
    section.validate().unwrap();
    let both = section.continuing(&folder).unwrap();
    assert_eq!(
        (both.rank(), both.alpha(), both.dropout),
        (4, 8.0, Some(0.0))
    );
    assert_eq!(both.target_modules, folder.target_modules);
    assert_eq!(both.reference(), AdapterReference::Start);
    for (text, said) in [
        ("r = 8", "r is 8, and 4 in the adapter"),
        ("use_dora = true", "use_dora is true, and false"),
        (
            "target_modules = 'mlp'",
            "target_modules is for a new adapter",
        ),
    ] {
        let error = config(text).continuing(&folder).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
