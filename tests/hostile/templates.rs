//! Chat templates that would abort, hang or fill the memory.

use super::program::Scene;

const HEAP: &str = "the chat template makes values of more than 128 MiB";
const DEEP: &str = "the chat template nests values too deep, or in themselves";
const LONG: &str = "the chat template writes more than 257 KiB";
const ENDLESS: &str = "the chat template does not come to an end";
const TAG: &str = "the chat template has a tag of more than 16 KiB";

/// In a loop of `n` rounds over a namespace.
fn rounds(start: &str, n: usize, body: &str, end: &str) -> String {
    format!(
        "{{% set ns=namespace({start}) %}}{{% for i in range({n}) %}}{body}{{% endfor %}}{{{{ {end} }}}}"
    )
}

/// Each template, and what is said of it, behind its place.
fn check(cases: &[(String, &str)]) {
    let scene = Scene::new();
    for (template, expected) in cases {
        std::fs::write(scene.model().join("chat_template.jinja"), template).unwrap();
        let shown: String = template.chars().take(100).collect();
        let refusal = scene.refusal(&shown);
        let said = refusal.strip_prefix("model/chat_template.jinja");
        let said = said.unwrap_or_else(|| panic!("{shown}: {refusal}"));
        let said = said.trim_start_matches([':', '1', ' ']);
        // Whether the stack or the text ends first depends on the build.
        let or_long = *expected == DEEP && said.starts_with(LONG);
        assert!(said.starts_with(expected) || or_long, "{shown}: {said}");
    }
}

#[test]
fn values_in_themselves_are_refused() {
    let cycle = |end: &str| format!("{{% set ns=namespace() %}}{{% set ns.a=ns %}}{end}");
    check(&[
        (cycle("{{ ns }}"), DEEP),
        (cycle("{{ ns|tojson }}"), DEEP),
        (cycle("{{ [ns,ns]|sort }}"), DEEP),
        (cycle("{{ ns|string|length }}"), DEEP),
        (cycle("{{ ns ~ '' }}"), DEEP),
    ]);
}

#[test]
fn deep_values_are_refused() {
    let deeper = "{% for j in range(6) %}{% set ns.l=[ns.l] %}{% endfor %}";
    check(&[
        (rounds("l=[1]", 99_999, deeper, "ns.l"), DEEP),
        (
            rounds("l=1", 99_999, "{% set ns.l={'a':ns.l} %}", "ns.l|tojson"),
            DEEP,
        ),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
            "the chat template fails: ",
        ),
    ]);
}

#[test]
fn expressions_and_branches_that_nest_too_deep_are_refused() {
    let tag = |letters: String| format!("{{{{ {letters} }}}}");
    check(&[
        (tag(format!("{}1", "-".repeat(20_000))), TAG),
        (tag(format!("1{}", "+1".repeat(20_000))), TAG),
        (tag(format!("{}1", "not ".repeat(20_000))), TAG),
        (tag(format!("a{}", ".a".repeat(200_000))), TAG),
        (tag(format!("a{}", "|e".repeat(200_000))), TAG),
        (
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(10_000)),
            "the chat template has more than 1000 `elif`s",
        ),
    ]);
}

#[test]
fn the_longest_tags_are_parsed_and_dropped() {
    let scene = Scene::new();
    for letters in [
        "-".repeat(16_000) + "1",
        "1".to_owned() + &"+1".repeat(8_000),
        "not ".repeat(4_000) + "1",
        "''.a".to_owned() + &"|e".repeat(8_000),
        "1".to_owned() + &"~1".repeat(8_000),
        "1".to_owned() + &"<1".repeat(8_000),
        "1".to_owned() + &" if 1".repeat(3_000),
        "(".repeat(16_000),
        "[".repeat(16_000),
        "a(".repeat(8_000),
    ] {
        let template = format!("{{{{ {letters} }}}}");
        std::fs::write(scene.model().join("chat_template.jinja"), template).unwrap();
        let (said, code) = scene.show();
        assert!(matches!(code, Some(0 | 2)), "{letters:.9}: {code:?} {said}");
        assert!(
            !said.contains("too deep, or in themselves"),
            "{letters:.9}: {said}"
        );
    }
}

#[test]
fn values_that_grow_without_end_are_refused() {
    let doubled = |by: &str| {
        rounds(
            "s='aaaaaaaaaa'",
            60,
            &format!("{{% set ns.s={by} %}}"),
            "ns.s|length",
        )
    };
    check(&[
        (doubled("ns.s~ns.s"), HEAP),
        (doubled("ns.s+ns.s"), HEAP),
        (doubled("ns.s*2"), HEAP),
        (doubled("[ns.s,ns.s]|join"), HEAP),
        (doubled("ns.s.replace('a','aa')"), HEAP),
        (doubled("ns.s|replace('a','aa')"), HEAP),
        (doubled("'{}{}'.format(ns.s,ns.s)"), HEAP),
        (doubled("'%s%s'|format(ns.s,ns.s)"), HEAP),
        (rounds("l=[1]", 60, "{% set ns.l=(ns.l+ns.l)|list %}", "ns.l|length"), HEAP),
        ("{{ (['a'*1000000]*1000000)|join('x'*1000000) }}".into(), HEAP),
        (
            "{% set a='a'*1000 %}{% set b=a.replace('a',a) %}{{ b.replace('a',a)|length }}".into(),
            HEAP,
        ),
        ("{{ [1]|batch(1000000000,0)|list|length }}".into(), HEAP),
        ("{{ [1]|slice(1000000000,0)|list|length }}".into(), HEAP),
        ("{{ ('a\\n'*10000)|indent(1000000) }}".into(), HEAP),
        ("{{ '{:>1000000000}'.format(1) }}".into(), HEAP),
        (
            "{% set x %}{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaa'*10000 }}{% endfor %}{% endset %}".into(),
            HEAP,
        ),
        (
            "{% macro m() %}{% for i in range(99999) %}{{ 'a'*100000 }}{% endfor %}{% endmacro %}{{ m()|length }}".into(),
            HEAP,
        ),
        ("{% filter upper %}{% for i in range(99999) %}{{ 'a'*100000 }}{% endfor %}{% endfilter %}".into(), HEAP),
        ("{{ 'a'*99999999 }}{{ 'a'*99999999 }}".into(), HEAP),
        ("{% for i in range(99999) %}{{ 'a'*1000 }}{% endfor %}".into(), LONG),
        ("{{ strftime_now('%Y'*1000000) }}".into(), "the chat template fails: "),
        ("{{ messages|tojson(indent=1000000000) }}".into(), "the chat template fails: "),
    ]);
}

#[test]
fn templates_without_end_are_stopped() {
    check(&[
        (
            "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}".into(),
            ENDLESS,
        ),
        // 1 GiB in all.
        (
            "{% set a='a'*9999999 %}{% for i in range(99999) %}{% set b=a~i %}{% endfor %}".into(),
            ENDLESS,
        ),
    ]);
}

#[test]
fn what_a_template_says_is_short_and_printable() {
    let refuses = "the chat template refuses the messages: ";
    check(&[
        ("{{ raise_exception('A'*50000000) }}".into(), refuses),
        (
            "{{ raise_exception('\\x1b]0;pwned\\x07') }}".into(),
            "the chat template refuses the messages: \\u{1b}]0;pwned\\u{7}",
        ),
        (
            format!("{{{{ '{}'.nothing() }}}}", "a".repeat(100_000)),
            "the chat template fails: ",
        ),
        (
            format!("{{{{ {}() }}}}", "a".repeat(10_000)),
            "the chat template fails: ",
        ),
        (
            format!("{{% {} %}}", "\u{1b}".repeat(10_000)),
            "the chat template does not parse",
        ),
    ]);
}

#[test]
fn a_template_that_is_fine_is_rendered_in_a_process_of_its_own() {
    let scene = Scene::new();
    let source = crate::support::fixture("chat").join("chatml.jinja");
    std::fs::copy(source, scene.model().join("chat_template.jinja")).unwrap();
    let (said, code) = scene.show();
    assert_eq!(code, Some(0), "{said}");
}
