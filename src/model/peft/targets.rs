//! Which layers of a model a config targets.

use std::collections::BTreeSet;

use super::config::{ALL_LINEAR, AdapterConfig, Layers};
use super::modules::{EXPERTS, Linear, Modules, Part, leaf, module};
use super::names::in_memory;
use super::pattern::{Matcher, Patterns, Table, Targets};
use crate::error::{Error, Result, nearest};
use crate::model::adapter::{Adapter, LowRank};
use crate::model::arch::Architecture;
use crate::model::parameters::Layout;

/// Whose config it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The user's: a name that selects nothing is an error.
    Section,
    /// A PEFT directory's: as PEFT, names that select nothing count for nothing.
    Folder,
}

impl AdapterConfig {
    /// The adapter on a model of this architecture, whose own layout is `layout`.
    ///
    /// # Errors
    /// If a name or pattern selects nothing, or something that can have no adapter.
    pub fn resolve(&self, arch: &Architecture, layout: &Layout) -> Result<Adapter> {
        resolve(self, arch, layout, Origin::Section)
    }
}

/// The adapter of a config on a model.
pub(super) fn resolve(
    config: &AdapterConfig,
    arch: &Architecture,
    layout: &Layout,
    origin: Origin,
) -> Result<Adapter> {
    let modules = Modules::of(arch, layout);
    let strict = origin == Origin::Section;
    let mut saved = BTreeSet::new();
    for name in &config.modules_to_save {
        let found = parameters_of(name, arch, layout);
        let found = found.map_err(|error| error.at_key("modules_to_save"))?;
        if found.is_empty() && strict {
            let ends: BTreeSet<&str> = modules.names().map(leaf).collect();
            return Err(
                Error::input(format!("\"{name}\" matches no module of the model"))
                    .hint(nearest(name, ends))
                    .at_key("modules_to_save"),
            );
        }
        saved.extend(found);
    }
    let mut targeted = targeted(config, &modules, strict)?;
    let is_saved = |layer: &str| saved.contains(&format!("{layer}.weight"));
    targeted.retain(|linear| !is_saved(&linear.layer));
    if targeted.is_empty() {
        return Err(Error::input("no layer is left that has an adapter")
            .hint("exclude_modules, layers_to_transform and modules_to_save leave target_modules nothing")
            .at_key("target_modules"));
    }
    let names: Vec<[&str; 2]> = targeted.iter().map(|linear| linear.names()).collect();
    let ranks = by_pattern(
        "rank_pattern",
        &config.rank_pattern,
        &names,
        &modules,
        strict,
    )?;
    let alphas = by_pattern(
        "alpha_pattern",
        &config.alpha_pattern,
        &names,
        &modules,
        strict,
    )?;
    let layer = |((linear, rank), alpha): ((&&Linear, Option<usize>), Option<f64>)| {
        let rank = rank.unwrap_or_else(|| config.rank());
        LowRank {
            layer: linear.layer.clone(),
            rank,
            scale: config.scale(alpha.unwrap_or_else(|| config.alpha()), rank),
            dora: config.use_dora,
        }
    };
    let layers = targeted.iter().zip(ranks).zip(alphas);
    let mut layers: Vec<LowRank> = layers.map(layer).collect();
    layers.sort_by(|a, b| a.layer.cmp(&b.layer));
    Ok(Adapter {
        layers,
        saved: saved.into_iter().collect(),
        dropout: config.dropout.unwrap_or_default(),
    })
}

/// The parameters of the modules whose names end with `name`, as PEFT has it, and of what is in them.
fn parameters_of(name: &str, arch: &Architecture, layout: &Layout) -> Result<Vec<String>> {
    let within = |path: &str| {
        let ends = path.match_indices('.').map(|(at, _)| &path[..at]);
        ends.chain([path]).any(|path| path.ends_with(name))
    };
    let is_in = |layer: &str| within(layer) || within(&in_memory(layer));
    let parameters = layout.entries.iter().map(|entry| entry.name.clone());
    let mut found: Vec<String> = parameters.filter(|name| is_in(module(name))).collect();
    if arch.tied && is_in(&arch.names.head) {
        found.push(format!("{}.weight", arch.names.head));
    }
    match found.iter().find(|parameter| parameter.contains(".experts.")) {
        Some(parameter) => Err(Error::input(format!("\"{name}\" is, among others, {parameter}"))
            .hint("experts are not trained beside an adapter; without [adapter], model.trainable selects them")),
        None => Ok(found),
    }
}

/// The layers that the config selects, but for its `modules_to_save`.
fn targeted<'a>(
    config: &AdapterConfig,
    modules: &'a Modules,
    strict: bool,
) -> Result<Vec<&'a Linear>> {
    let fail = |error: Error| error.at_key("target_modules");
    let shorthand = match &config.target_modules {
        None => Some(shorthand(ALL_LINEAR).unwrap_or_default()),
        Some(Targets::One(text)) => shorthand(text),
        Some(Targets::List(_)) => None,
    };
    let excluded = config.exclude_modules.as_ref().map(Matcher::new);
    let excluded = excluded
        .transpose()
        .map_err(|error| error.at_key("exclude_modules"))?;
    let is_excluded = |names: [&str; 2]| {
        let mut excluded = excluded.iter();
        excluded.any(|matcher| names.iter().any(|name| matcher.matches(name)))
    };
    if let (true, Some(matcher), Some(targets)) = (strict, &excluded, &config.exclude_modules) {
        let unused = unused(matcher, targets, modules);
        unused.map_err(|error| error.at_key("exclude_modules"))?;
    }
    let blocks = blocks(config, modules, strict)?;
    let in_block = |linear: &Linear| match (&blocks, linear.block) {
        (Some(blocks), Some(block)) => blocks.contains(&block),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let included = modules
        .linear
        .iter()
        .filter(|linear| !is_excluded(linear.names()));
    let found: Vec<&Linear> = match (shorthand, &config.target_modules) {
        (None, Some(targets)) => {
            let matcher = Matcher::new(targets).map_err(fail)?;
            if strict {
                unused(&matcher, targets, modules).map_err(fail)?;
                refuse_others(&matcher, modules, is_excluded).map_err(fail)?;
            }
            // As in PEFT a whole name counts whatever the layers.
            let selected = |linear: &&Linear| {
                let names = linear.names();
                names.iter().any(|name| {
                    matcher.has_whole(name) || (matcher.matches(name) && in_block(linear))
                })
            };
            included.filter(selected).collect()
        }
        (shorthand, _) => {
            let parts = shorthand.unwrap_or_default();
            let selected = |linear: &&Linear| parts.contains(&linear.part) && in_block(linear);
            included.filter(selected).collect()
        }
    };
    if found.is_empty() && !modules.linear.iter().any(|linear| linear.part == Part::Mlp) {
        return Err(fail(
            Error::input("the targets match no layer that can have an adapter").hint(EXPERTS),
        ));
    }
    Ok(found)
}

/// The parts that a shorthand stands for.
fn shorthand(text: &str) -> Option<&'static [Part]> {
    match text.to_ascii_lowercase().as_str() {
        ALL_LINEAR => Some(&[Part::Attention, Part::Mlp]),
        "attention" => Some(&[Part::Attention]),
        "mlp" => Some(&[Part::Mlp]),
        _ => None,
    }
}

/// The layers by number, if not all.
fn blocks(
    config: &AdapterConfig,
    modules: &Modules,
    strict: bool,
) -> Result<Option<BTreeSet<usize>>> {
    let blocks: BTreeSet<usize> = match &config.layers_to_transform {
        None => return Ok(None),
        Some(Layers::One(block)) => [*block].into(),
        Some(Layers::List(blocks)) => blocks.iter().copied().collect(),
    };
    match blocks.last() {
        None => Ok(None),
        Some(last) if *last >= modules.blocks && strict => Err(Error::input(format!(
            "there is no layer {last}: the model has {} layers, from 0",
            modules.blocks
        ))
        .at_key("layers_to_transform")),
        Some(_) => Ok(Some(blocks)),
    }
}

/// Refuses a regex, or a name of a list, that matches no module.
fn unused(matcher: &Matcher, targets: &Targets, modules: &Modules) -> Result<()> {
    let found = |matcher: &Matcher| {
        let mut all = modules.all();
        all.any(|(names, _)| names.iter().any(|name| matcher.matches(name)))
    };
    let (name, hint) = match targets {
        Targets::One(_) if found(matcher) => return Ok(()),
        Targets::One(pattern) if modules.leaves().contains(pattern.as_str()) => {
            let whole = &modules.linear[0].name;
            let hint =
                format!("a regex matches a whole name, {whole}; for its end: [\"{pattern}\"]");
            (pattern, hint)
        }
        Targets::One(pattern) => (pattern, nearest(pattern, modules.leaves())),
        Targets::List(names) => {
            let alone = |name: &String| Matcher::List([name.clone()].into());
            let Some(name) = names.iter().find(|name| !found(&alone(name))) else {
                return Ok(());
            };
            let hint = match shorthand(name) {
                Some(_) => format!("a shorthand stands alone: target_modules = \"{name}\""),
                None => nearest(name, modules.leaves()),
            };
            (name, hint)
        }
    };
    Err(Error::input(format!("\"{name}\" matches no module of the model")).hint(hint))
}

/// Refuses targets that can have no adapter.
fn refuse_others(
    matcher: &Matcher,
    modules: &Modules,
    is_excluded: impl Fn([&str; 2]) -> bool,
) -> Result<()> {
    for (names, why) in modules.all() {
        if let Some(why) = why
            && !is_excluded(names)
            && let Some(name) = names.iter().find(|name| matcher.matches(name))
        {
            return Err(Error::input(format!("{name} can have no adapter")).hint(why));
        }
    }
    Ok(())
}

/// The value of the first pattern that matches each of `layers`, by its names.
fn by_pattern<T: Copy>(
    key: &str,
    patterns: &Patterns<T>,
    layers: &[[&str; 2]],
    modules: &Modules,
    strict: bool,
) -> Result<Vec<Option<T>>> {
    let table = Table::new(patterns).map_err(|error| error.at_key(key))?;
    let used: BTreeSet<usize> = layers
        .iter()
        .filter_map(|names| table.position(names))
        .collect();
    match (0..patterns.0.len()).find(|key| !used.contains(key)) {
        Some(unused) if strict => {
            let name = table.written(unused);
            let hint = match layers.iter().any(|names| table.matches(unused, names)) {
                true => "a pattern before it matches the same layers: put it first".to_owned(),
                false => nearest(name, modules.leaves()),
            };
            let fact = format!("\"{name}\" decides for no layer that has an adapter");
            Err(Error::input(fact).hint(hint).at_key(key))
        }
        _ => Ok(layers.iter().map(|names| table.get(names)).collect()),
    }
}
