//! Names under which the tools, or the prompts, of all services stand side by side: at most 64
//! characters of `[a-zA-Z0-9_-]`, which is what hosts allow, and no two alike.
//!
//! Pure: the same tools have the same names in every process. When two would be
//! called the same, neither keeps the name: one that a host has noted must not
//! come to mean a tool of another service.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::exposure::ToolPrefix;

/// The longest name that hosts allow.
const NAME_MAX: usize = 64;
const SEPARATOR: &str = "__";
/// How many characters of a service a shortened name keeps at least, if it has them.
const SERVICE_KEPT: usize = 16;
/// How long a suffix is, and how long when names are still alike.
const SUFFIXES: [usize; 3] = [8, 16, 32];

/// A tool or prompt of a service, by their own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Original<'a> {
    pub(super) service: &'a str,
    pub(super) name: &'a str,
}

/// A name for each of `tools`, in their order. Distinct tools get distinct names.
pub(super) fn names(prefix: ToolPrefix, tools: &[Original<'_>]) -> Vec<String> {
    let bare = counted(tools.iter().map(|original| original.name));
    let prefixed: Vec<bool> = tools
        .iter()
        .map(|original| match prefix {
            ToolPrefix::Always => true,
            ToolPrefix::OnCollision => bare[original.name] > 1,
            ToolPrefix::None => false,
        })
        .collect();
    // How many of `SUFFIXES` each name has gone through.
    let mut tried: Vec<usize> =
        tools.iter().zip(&prefixed).map(|(original, prefixed)| usize::from(!fits(*original, *prefixed))).collect();
    let name = |((original, prefixed), tried): ((&Original<'_>, &bool), &usize)| match tried.checked_sub(1) {
        None => whole(*original, *prefixed),
        Some(last) => suffixed(*original, *prefixed, SUFFIXES[last]),
    };
    let mut names: Vec<String> = tools.iter().zip(&prefixed).zip(&tried).map(name).collect();
    for _ in SUFFIXES {
        let count = counted(names.iter().cloned());
        for (index, current) in names.iter_mut().enumerate().filter(|(_, name)| count[name.as_str()] > 1) {
            tried[index] = (tried[index] + 1).min(SUFFIXES.len());
            *current = name(((&tools[index], &prefixed[index]), &tried[index]));
        }
    }
    names
}

fn counted<T: Eq + std::hash::Hash>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

/// The name as it is.
fn whole(original: Original<'_>, prefixed: bool) -> String {
    match prefixed {
        true => format!("{}{SEPARATOR}{}", original.service, original.name),
        false => original.name.to_owned(),
    }
}

fn fits(original: Original<'_>, prefixed: bool) -> bool {
    let name = whole(original, prefixed);
    name.len() <= NAME_MAX && name.chars().all(is_allowed)
}

/// A readable stem and `width` digits of the hash of the names themselves. Long
/// names lose the end of the service first.
fn suffixed(original: Original<'_>, prefixed: bool, width: usize) -> String {
    let room = NAME_MAX - 1 - width;
    let (service, tool) = (allowed(original.service), allowed(original.name));
    let hash = hash_of(original);
    if !prefixed {
        return format!("{}_{}", head(&tool, room), &hash[..width]);
    }
    let room = room - SEPARATOR.len();
    let tool = head(&tool, room - service.len().min(SERVICE_KEPT));
    let service = head(&service, room - tool.len());
    format!("{service}{SEPARATOR}{tool}_{}", &hash[..width])
}

/// The first characters of a text that is ASCII.
fn head(text: &str, most: usize) -> &str {
    &text[..text.len().min(most)]
}

fn allowed(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_allowed) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect())
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Names have no control characters, so a zero byte between them is unambiguous.
fn hash_of(original: Original<'_>) -> String {
    let digest = Sha256::digest(format!("{}\0{}", original.service, original.name));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "flat_names_tests.rs"]
mod tests;
