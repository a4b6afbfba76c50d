//! Pages of the guide that say what the code says.

use std::fmt::Write;
use std::fs;

use expo::run_dir::Metric;

use super::root;
use crate::support::{check, replaced};

/// The sections of `configs/reference.toml`, losses aside, as tables; `tests/configs.rs` holds that file
/// equal to the code.
#[test]
fn the_guide_has_the_table_of_config_keys() {
    let reference = fs::read_to_string(root().join("configs/reference.toml")).unwrap();
    let mut tables = String::new();
    // Whether the section is commented out, since a run may be without it.
    let mut optional = false;
    let mut skipped = true;
    for line in reference.lines() {
        let (bare, commented) = match line.strip_prefix("# ") {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        if let Some(section) = bare
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            optional = commented;
            skipped = section.starts_with("loss.");
            if !skipped {
                let note = if optional { ", if there is one" } else { "" };
                write!(
                    tables,
                    "\n## `[{section}]`{note}\n\n| key | default | meaning |\n|---|---|---|\n"
                )
                .unwrap();
            }
            continue;
        }
        if skipped {
            continue;
        }
        let line = if optional { bare } else { line };
        let (setting, has_default) = match line.strip_prefix("# ") {
            Some(rest) => (rest, false),
            None => (line, true),
        };
        let Some((key, rest)) = setting.split_once(" = ") else {
            continue;
        };
        // A sentence has spaces in front of its first " = ".
        if key.contains(' ') {
            continue;
        }
        let (value, meaning) = rest.split_once(" # ").unwrap_or_else(|| panic!("{line}"));
        let (value, meaning) = (value.trim(), escaped(meaning.trim()));
        let required = meaning.strip_prefix("required: ");
        let row = match (required, has_default) {
            (Some(meaning), _) => format!("| `{key}` | required | {meaning}, e.g. `{value}` |"),
            (None, true) => format!("| `{key}` | `{value}` | {meaning} |"),
            (None, false) => format!("| `{key}` | - | {meaning}, e.g. `{value}` |"),
        };
        writeln!(tables, "{row}").unwrap();
    }
    tables += "\n## `[loss.NAME]`\n\n";
    let path = root().join("src/guide/config.md");
    let page = fs::read_to_string(&path).unwrap();
    let begins = "\n## `[model]`";
    let page = match page.contains(begins) {
        true => page,
        false => page.trim_end().to_owned() + "\n" + begins,
    };
    let ends = |line: &str| line.starts_with("Each loss has its own knobs");
    check(&path, &replaced(&page, begins, ends, &tables));
}

#[test]
fn the_guide_has_the_table_of_metrics() {
    let head = "| name | meaning | when |\n";
    let mut table = format!("{head}|---|---|---|\n");
    for Metric {
        name,
        meaning,
        when,
    } in Metric::ALL
    {
        writeln!(table, "| `{name}` | {meaning} | {when} |").unwrap();
    }
    let path = root().join("src/guide/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    check(
        &path,
        &replaced(&page, head, |line| !line.starts_with('|'), &table),
    );
}

/// Text as it is in a cell of a table: brackets are not links.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('[', "\\[")
}
