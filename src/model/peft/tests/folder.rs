use super::*;

#[test]
fn a_directory_that_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("llama", ""),
        (
            "gpt2",
            "use_dora = true\nmodules_to_save = ['wpe', 'ln_f', 'h.1.attn.c_proj']",
        ),
        (
            "neox",
            "modules_to_save = ['embed_out']\nlayers_to_transform = 0",
        ),
        ("llama3", "target_modules = ['lm_head', 'q_proj']"),
        ("qwen2", "modules_to_save = ['lm_head', 'embed_tokens']"),
        (
            "gemma3-multimodal",
            "target_modules = ['q_proj']\nmodules_to_save = ['norm']",
        ),
        (
            "mixtral",
            "rank_pattern = { q_proj = 2, 'layers.0.self_attn.v_proj' = 2 }",
        ),
        (
            "phi3-window",
            "r = 3\nalpha = 7.5\nalpha_pattern = { 'o_proj|down_proj' = 2 }\nuse_rslora = true",
        ),
    ] {
        let (arch, layout) = model(name);
        let config = config(text);
        let adapter = config.resolve(&arch, &layout).unwrap();
        let json = config_json(&config, &adapter, &arch, "base", Some("main")).unwrap();
        let mut params = zeros(name, &adapter);
        let own = trained(params.layout());
        write(directory.path(), &json, &own);
        let folder = PeftFolder::open(directory.path()).unwrap();
        assert_eq!(folder.base.as_deref(), Some("base"));
        assert_eq!(folder.revision.as_deref(), Some("main"));
        assert_eq!(
            folder.adapter(&arch, &layout).unwrap(),
            adapter,
            "{name}: {json}"
        );
        let hash = folder.load_into(&mut params).unwrap();
        assert_eq!(hash.len(), 64);
        for entry in own {
            let mut values = params.values(entry.range.clone()).unwrap();
            if entry.transposed {
                values = crate::model::parameters::transpose(&values, &entry.shape);
            }
            let want: Vec<f32> = entry.range.map(|i| i as f32).collect();
            assert_eq!(values, want, "{name} {}", entry.name);
        }
    }
}

#[test]
fn the_shortest_names_that_select_the_layers_are_written() {
    let targets = |name: &str, text: &str| {
        let (arch, layout) = model(name);
        let config = config(text);
        let adapter = config.resolve(&arch, &layout).unwrap();
        let json = config_json(&config, &adapter, &arch, "base", None).unwrap();
        json["target_modules"].clone()
    };
    assert_eq!(
        targets("llama", "target_modules = 'attention'"),
        json!(["k_proj", "o_proj", "q_proj", "v_proj"])
    );
    assert_eq!(
        targets(
            "gpt2",
            "target_modules = ['attn.c_proj']\nlayers_to_transform = 1"
        ),
        json!(["1.attn.c_proj"])
    );
    assert_eq!(
        targets(
            "gemma3-multimodal",
            "target_modules = 'mlp'\nlayers_to_transform = 1"
        )[0],
        json!("model.language_model.layers.1.mlp.down_proj")
    );
    assert_eq!(
        targets("neox", "target_modules = ['embed_out']"),
        json!(["lm_head"])
    );
}

#[test]
fn tensors_that_are_not_those_of_the_config_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let (arch, layout) = model("llama");
    let config = config("target_modules = ['q_proj']");
    let adapter = config.resolve(&arch, &layout).unwrap();
    let json = config_json(&config, &adapter, &arch, "base", None).unwrap();
    let own = trained(zeros("llama", &adapter).layout());
    let said = |json: &Value, change: &dyn Fn(&mut Vec<Entry>)| {
        let mut own = own.clone();
        change(&mut own);
        write(directory.path(), json, &own);
        let folder = PeftFolder::open(directory.path());
        let adapter = folder.and_then(|folder| folder.adapter(&arch, &layout));
        adapter.unwrap_err().to_string()
    };
    let with = |key: &str, value: Value| {
        let mut json = json.clone();
        json[key] = value;
        json
    };
    let rename = |name: &'static str| move |own: &mut Vec<Entry>| own[0].name = name.into();
    let keep: &dyn Fn(&mut Vec<Entry>) = &|_| {};
    for (error, want) in [
        (said(&json, &|own| drop(own.pop())), "is missing"),
        (said(&with("r", 4.into()), keep), "has shape [8, 24]"),
        (
            said(&with("target_modules", json!(["q_proj", "x"])), &|own| {
                own.extend(own[..1].to_vec());
                own.last_mut().unwrap().name = "model.layers.0.mlp.x.lora_A.weight".into();
            }),
            "does not ask for tensor base_model.model.model.layers.0.mlp.x.lora_A.weight",
        ),
        (
            said(&with("modules_to_save", json!(["model.norm"])), keep),
            "model.norm.weight is missing",
        ),
        (
            said(&json, &rename("model.embed_tokens.lora_embedding_A")),
            "is missing",
        ),
        (
            said(&with("peft_type", "LOHA".into()), keep),
            "peft_type is \"LOHA\"",
        ),
        (
            said(&with("task_type", "SEQ_CLS".into()), keep),
            "task_type is \"SEQ_CLS\"",
        ),
        (said(&with("bias", "all".into()), keep), "bias is \"all\""),
        (
            said(&with("init_lora_weights", "pissa".into()), keep),
            "path_initial_model",
        ),
        (
            said(&with("target_parameters", json!(["experts"])), keep),
            "target_parameters is",
        ),
        (
            said(&with("new_kind", json!({"a": 1})), keep),
            "does not know this key",
        ),
        (
            said(&with("target_modules", Value::Null), keep),
            "target_modules is not set",
        ),
        (said(&with("r", "8".into()), keep), "r: invalid type"),
        (
            said(&with("lora_alpha", 0.into()), keep),
            "alpha must be > 0",
        ),
    ] {
        assert!(error.contains(want), "{error}");
    }
    write(directory.path(), &json, &own);
    fs::rename(
        directory.path().join(ADAPTER_WEIGHTS),
        directory.path().join("adapter_model.bin"),
    )
    .unwrap();
    let error = PeftFolder::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("save_pretrained(directory)"), "{error}");
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let (arch, layout) = model("llama");
    let draw = |text: &str, init, seed| {
        let adapter = config(text).resolve(&arch, &layout).unwrap();
        let mut params = zeros("llama", &adapter);
        let own = Arc::clone(params.layout());
        initialize(&adapter, init, seed, &mut params).unwrap();
        let of = |name: &str| {
            params
                .values(own.entries[own.id(name)].range.clone())
                .unwrap()
        };
        let name = "model.layers.1.self_attn.q_proj";
        assert!(
            of(&format!("{name}.lora_B.weight"))
                .iter()
                .all(|x| *x == 0.0)
        );
        of(&format!("{name}.lora_A.weight"))
    };
    let all = draw("r = 64", Init::Default, 1);
    assert_eq!(
        all,
        draw("r = 64\ntarget_modules = ['q_proj']", Init::Default, 1)
    );
    assert_ne!(all, draw("r = 64", Init::Default, 2));
    let bound = 1.0 / (arch.hidden_size as f64).sqrt();
    let mean = |of: &dyn Fn(f64) -> f64, values: &[f32]| {
        values.iter().map(|x| of(f64::from(*x))).sum::<f64>() / values.len() as f64
    };
    assert!(all.iter().all(|x| f64::from(x.abs()) <= bound));
    let variance = mean(&|x| x * x, &all);
    assert!(
        (variance / (bound * bound / 3.0) - 1.0).abs() < 0.1,
        "{variance}"
    );
    let normal = draw("r = 64", Init::Gaussian, 1);
    let variance = mean(&|x| x * x, &normal);
    assert!((variance * 64.0 * 64.0 - 1.0).abs() < 0.1, "{variance}");
}

#[test]
fn adapters_of_peft_are_read() {
    let Some(fixtures) = std::env::var_os("EXPO_FIXTURES").map(PathBuf::from) else {
        return;
    };
    let adapters = fixtures.join("adapters");
    let mut read = 0;
    for entry in fs::read_dir(&adapters).unwrap() {
        let path = entry.unwrap().path();
        if !PeftFolder::is_one(&path) {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let base = name.split_once('.').unwrap().0;
        let base = ModelFolder::open(&fixtures.join("models").join(base)).unwrap();
        let folder = PeftFolder::open(&path).unwrap();
        let adapter = folder.adapter(&base.arch, base.layout()).unwrap();
        let layout = base.with_adapter(&adapter).layout().clone();
        let mut params = Params::zeros(Arc::new(layout), DType::F32, &Device::Cpu).unwrap();
        folder.load_into(&mut params).unwrap();
        assert_eq!(
            adapter.layers.iter().any(|l| l.dora),
            name.ends_with("dora")
        );
        assert_eq!(adapter.saved.is_empty(), !name.ends_with("saved"));
        read += 1;
    }
    assert!(read > 5, "{read}");
}
