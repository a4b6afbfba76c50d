//! From text to ids, and the length limit.

use super::*;

#[test]
fn a_tokenizer_knows_its_begin_and_end_tokens() {
    let bytes = Tokenizer::open(&fixture("data/byte-level")).unwrap();
    assert_eq!(
        (bytes.begin(), bytes.ends(), bytes.eos()),
        (&[][..], &[0][..], 0)
    );
    let llama = Tokenizer::open(&fixture("data/metaspace")).unwrap();
    assert_eq!(
        (llama.begin(), llama.ends(), llama.eos()),
        (&[1][..], &[2, 3][..], 2)
    );
    assert_eq!(llama.max_id(), 36);
    assert_eq!(llama.hash().len(), 64);
    assert_ne!(llama.hash(), bytes.hash());
    // The file asks for truncation to 4, padding to 9 and dropout.
    assert_eq!(
        bytes.encode("yes yes").unwrap(),
        bytes.encode("yes yes").unwrap()
    );
    assert_eq!(
        bytes
            .decode(&bytes.encode("no yes, yes").unwrap(), false)
            .unwrap(),
        "no yes, yes"
    );
}

#[test]
fn a_folder_without_a_tokenizer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let message = || Tokenizer::open(folder.path()).err().unwrap().to_string();
    assert!(
        message().contains("the directory has no tokenizer.json; save the model's"),
        "{}",
        message()
    );
    let path = folder.path().join("tokenizer.json");
    for (contents, what) in [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not a tokenizer"),
    ] {
        std::fs::write(&path, contents).unwrap();
        assert!(message().contains(what), "{}", message());
    }
    std::fs::copy(fixture("data/metaspace/tokenizer.json"), &path).unwrap();
    assert!(
        message().contains("no file of the model names an end token"),
        "{}",
        message()
    );
    let config = folder.path().join("generation_config.json");
    std::fs::write(&config, r#"{"eos_token_id": "</s>"}"#).unwrap();
    assert!(
        message().contains("`eos_token_id` is \"</s>\"; it must be a token id or a list"),
        "{}",
        message()
    );
}

#[test]
fn begin_tokens_go_in_front_once_and_only_if_asked() {
    let mut scene = Scene::pairs(
        "metaspace",
        &[["hi", " a", " b"], ["<s>hi", " a", " b"], ["", "ab", "cd"]],
    );
    let dataset = scene.open(&PAIR).unwrap();
    let words = |ids: &[u32]| scene.words(ids).join("|");
    assert_eq!(words(&examples(&dataset)[0].prompt), "<s>|▁|h|i");
    assert_eq!(words(&examples(&dataset)[1].prompt), "<s>|▁|h|i");
    assert_eq!(words(&examples(&dataset)[2].prompt), "<s>");
    // A text gets a space in front, its inside does not.
    assert_eq!(
        words(ids(&examples(&dataset)[0], Role::Chosen)[0]),
        "▁a|</s>"
    );
    assert_eq!(
        words(ids(&examples(&dataset)[2], Role::Rejected)[0]),
        "▁|c|d|</s>"
    );

    scene.config.tokens.add_bos = AddBos::Never;
    let dataset = scene.open(&PAIR).unwrap();
    let words = |ids: &[u32]| scene.words(ids).join("|");
    assert_eq!(words(&examples(&dataset)[0].prompt), "▁|h|i");
    assert_eq!(words(&examples(&dataset)[1].prompt), "<s>|▁|h|i");
    let example = &examples(&dataset)[2];
    assert!(example.prompt.is_empty());
    let chosen = &example.responses[0];
    assert_eq!(chosen.ids.len(), 3);
    assert_eq!(example.scored_tokens(chosen), 2);
    assert_eq!(
        examples(&dataset)[0].scored_tokens(&examples(&dataset)[0].responses[0]),
        2
    );
}

#[test]
fn an_answer_that_ends_in_any_end_token_gets_no_other() {
    let scene = Scene::pairs("metaspace", &[["hi", " a</s>", " b<turn>"]]);
    let dataset = scene.open(&PAIR).unwrap();
    let example = &examples(&dataset)[0];
    assert_eq!(ids(example, Role::Chosen)[0].last(), Some(&2));
    assert_eq!(
        scene.words(ids(example, Role::Rejected)[0]).join("|"),
        "▁|b|<turn>"
    );
}

#[test]
fn white_space_behind_an_end_token_is_dropped_and_nothing_else() {
    let rows = [
        ["p", "yes<|end|> \n", "yes<|end|>x"],
        ["p", "yes<|end|>no<|end|>\n", "no "],
    ];
    let scene = Scene::pairs("byte-level", &rows);
    let dataset = scene.open(&PAIR).unwrap();
    let text = |row: usize, role| scene.words(ids(&examples(&dataset)[row], role)[0]).concat();
    assert_eq!(text(0, Role::Chosen), "yes<|end|>");
    assert_eq!(text(0, Role::Rejected), "yes<|end|>x<|end|>");
    assert_eq!(text(1, Role::Chosen), "yes<|end|>no<|end|>");
    assert_eq!(text(1, Role::Rejected), "no <|end|>");
}

#[test]
fn the_pieces_of_a_text_are_the_text() {
    for (folder, text) in [("data/byte-level", "yes, no\n"), ("llama", "the red fox")] {
        let tokenizer = Tokenizer::open(&fixture(folder)).unwrap();
        let pieces = tokenizer.pieces(&tokenizer.encode(text).unwrap()).unwrap();
        let joined = pieces.concat().replace('\u{2581}', " ");
        assert_eq!(joined.trim_start(), text);
    }
    // A letter of two bytes is two ids, each of which is no letter by itself.
    let tokenizer = Tokenizer::open(&fixture("data/byte-level")).unwrap();
    let pieces = tokenizer.pieces(&tokenizer.encode("aé").unwrap()).unwrap();
    assert_eq!(pieces, ["a", "Ã", "©"]);
}

#[test]
fn a_merge_across_the_boundary_is_counted_and_leaves_the_prompt_alone() {
    let mut scene = Scene::pairs("byte-level", &[["ab", "c", "d"], ["ab", " a", "x"]]);
    let dataset = scene.open(&PAIR).unwrap();
    let words = |ids: &[u32]| scene.words(ids).join("|");
    let example = &examples(&dataset)[0];
    assert_eq!(words(&example.prompt), "a|b");
    assert_eq!(words(ids(example, Role::Chosen)[0]), "c|<|end|>");
    assert_eq!(dataset.report.boundary_merges, 1);

    scene.config.tokens.tokenize = Tokenize::Separate;
    let separate = scene.open(&PAIR).unwrap();
    assert_eq!(examples(&separate), examples(&dataset));
    assert_eq!(separate.report.boundary_merges, 0);
}

#[test]
fn separate_tokenisation_puts_a_space_in_front_of_an_answer() {
    let mut scene = Scene::pairs("metaspace", &[["hi", "a", "b"]]);
    let chosen = |scene: &Scene| {
        let dataset = scene.open(&PAIR).unwrap();
        scene
            .words(ids(&examples(&dataset)[0], Role::Chosen)[0])
            .join("|")
    };
    assert_eq!(chosen(&scene), "a|</s>");
    scene.config.tokens.tokenize = Tokenize::Separate;
    assert_eq!(chosen(&scene), "▁a|</s>");
}

#[test]
fn the_limit_cuts_first_the_prompt_and_then_the_answers() {
    // Prompt 7 tokens with <s>, chosen 5 and rejected 3 with </s>.
    let mut scene = Scene::pairs("metaspace", &[["uvwxy", "klmn", "no"]]);
    let cut = |scene: &Scene| {
        let dataset = scene.open(&PAIR).unwrap();
        let example = &examples(&dataset)[0];
        let parts = [
            &example.prompt[..],
            ids(example, Role::Chosen)[0],
            ids(example, Role::Rejected)[0],
        ];
        let report = &dataset.report;
        let counts = (
            report.cut_prompts,
            report.cut_responses,
            report.unfinished_responses,
        );
        (parts.map(|part| scene.words(part).concat()), counts)
    };
    let expect = |prompt: &str, chosen: &str, rejected: &str, counts| {
        ([prompt, chosen, rejected].map(str::to_owned), counts)
    };
    scene.config.length.max_prompt_length = 4;
    // One token beyond the limit: 7 + 5 = 12.
    scene.config.length.max_length = 12;
    assert_eq!(
        cut(&scene),
        expect("<s>▁uvwxy", "klmn</s>", "no</s>", (0, 0, 0))
    );
    scene.config.length.max_length = 11;
    assert_eq!(
        cut(&scene),
        expect("<s>▁uv", "klmn</s>", "no</s>", (1, 0, 0))
    );
    scene.config.length.truncation_mode = Some(TruncationMode::KeepEnd);
    assert_eq!(
        cut(&scene),
        expect("<s>wxy", "klmn</s>", "no</s>", (1, 0, 0))
    );
    // 4 + 5 = 9.
    scene.config.length.max_length = 8;
    assert_eq!(cut(&scene), expect("<s>wxy", "klmn", "no</s>", (1, 1, 1)));
    scene.config.length.max_length = 6;
    assert_eq!(cut(&scene), expect("<s>wxy", "kl", "no", (1, 2, 2)));
    // A prompt within its limit is left alone, and the answers have the room that there is.
    scene.config.length.max_prompt_length = 8;
    scene.config.length.max_length = 10;
    assert_eq!(cut(&scene), expect("<s>▁uvwxy", "klm", "no</s>", (0, 1, 1)));
    scene.config.length.official_truncation = true;
    assert_eq!(cut(&scene), expect("<s>▁uvwxy", "kl", "no", (0, 2, 2)));
}

#[test]
fn a_prompt_needs_room_for_an_answer() {
    let mut scene = Scene::new("pairs", "byte-level", ROW);
    scene.config.length.max_prompt_length = 512;
    assert_eq!(
        scene.complaint(&PAIR),
        "[data]: max_prompt_length 512 leaves no room for an answer within \
         max_length 512; max_prompt_length must be smaller than max_length"
    );
}
