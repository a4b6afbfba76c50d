//! Rust source as a list of words and symbols: enough to find paths, no more.

/// The text with comments and literals replaced by blanks; lines stay where they are.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        }
        while i < end {
            out.push(if chars[i] == '\n' { '\n' } else { ' ' });
            i += 1;
        }
    }
    out
}

/// Where the comment or literal that starts at `i` ends; `i` where none starts.
fn literal_end(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let find = |from: usize, done: &dyn Fn(usize) -> bool| {
        (from..chars.len())
            .find(|&k| done(k))
            .unwrap_or(chars.len())
    };
    let in_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match (at(i), at(i + 1)) {
        ('/', '/') => find(i, &|k| chars[k] == '\n'),
        ('/', '*') => {
            let (mut depth, mut k) = (1, i + 2);
            while depth > 0 && k < chars.len() {
                match (at(k), at(k + 1)) {
                    ('/', '*') => (depth, k) = (depth + 1, k + 1),
                    ('*', '/') => (depth, k) = (depth - 1, k + 1),
                    _ => {}
                }
                k += 1;
            }
            k
        }
        ('r', '"' | '#') if !in_word => {
            let quote = find(i + 1, &|k| chars[k] != '#');
            if at(quote) != '"' {
                return i; // r#name
            }
            let hashes = quote - i - 1;
            let closes = |k: usize| chars[k] == '"' && (1..=hashes).all(|n| at(k + n) == '#');
            (find(quote + 1, &closes) + 1 + hashes).min(chars.len())
        }
        ('"', _) => {
            let mut k = i + 1;
            while k < chars.len() && chars[k] != '"' {
                k += 1 + usize::from(chars[k] == '\\');
            }
            (k + 1).min(chars.len())
        }
        // A lifetime has no closing quote after its first character.
        ('\'', '\\') => (find(i + 3, &|k| chars[k] == '\'') + 1).min(chars.len()),
        ('\'', _) if at(i + 2) == '\'' => i + 3,
        _ => i,
    }
}

/// [`blank`], with `#[cfg(test)]` modules blanked out as well.
pub fn program(text: &str) -> String {
    let mut code = blank(text);
    while let Some((start, _, end)) = test_module(&code) {
        let hole: String = code[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        code.replace_range(start..end, &hole);
    }
    code
}

/// The names of test modules that are files of their own.
pub fn test_files(text: &str) -> Vec<String> {
    let mut code = blank(text);
    let mut found = Vec::new();
    while let Some((start, name, end)) = test_module(&code) {
        if code[..end].ends_with(';') {
            found.push(name);
        }
        code.replace_range(start..end, "");
    }
    found
}

/// The first `#[cfg(test)] mod name { … }` or `… ;`: where it starts, its name, where it ends.
fn test_module(code: &str) -> Option<(usize, String, usize)> {
    let mut from = 0;
    loop {
        let start = from + code[from..].find("#[cfg(test)]")?;
        from = start + "#[cfg(test)]".len();
        let rest = code[from..].trim_start();
        let public = ["pub ", "pub(crate) ", "pub(super) "];
        let private = public.iter().find_map(|word| rest.strip_prefix(word));
        let Some(rest) = private.unwrap_or(rest).strip_prefix("mod ") else {
            continue;
        };
        let name = rest
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()?;
        let body = code.len() - rest.len() + rest.find(['{', ';'])?;
        let mut depth = 0;
        for (i, c) in code[body..].char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 {
                return Some((start, name.to_string(), body + i + 1));
            }
        }
        return Some((start, name.to_string(), code.len()));
    }
}

/// Words and symbols with their lines; `::` is one symbol.
pub struct Source {
    tokens: Vec<(usize, String)>,
}

impl Source {
    pub fn new(blanked: &str) -> Self {
        let mut tokens: Vec<(usize, String)> = Vec::new();
        let mut glued = false;
        for (number, line) in blanked.lines().enumerate() {
            for c in line.chars() {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                match tokens.last_mut() {
                    Some((_, last)) if glued && is_word(c) && last.ends_with(is_word) => {
                        last.push(c);
                    }
                    Some((_, last)) if glued && c == ':' && last == ":" => last.push(c),
                    _ if !c.is_whitespace() => tokens.push((number + 1, c.to_string())),
                    _ => {}
                }
                glued = !c.is_whitespace();
            }
            glued = false;
        }
        Self { tokens }
    }

    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let tokens = self.tokens.iter().enumerate();
        tokens.map(|(at, (_, word))| (at, word.as_str()))
    }

    pub fn symbol(&self, at: usize) -> Option<&str> {
        self.tokens.get(at).map(|(_, word)| word.as_str())
    }

    pub fn line(&self, at: usize) -> usize {
        self.tokens[at].0
    }

    /// Whether the token at `at` comes right after `before`.
    pub fn follows(&self, at: usize, before: &[&str]) -> bool {
        let start = at.checked_sub(before.len());
        start.is_some_and(|s| (0..before.len()).all(|k| self.symbol(s + k) == Some(before[k])))
    }

    /// The paths, from the root of the crate, that a file of the module `own` reaches for through
    /// `crate::`, `super::` or `self::`, or in a `use` of one of its `children`; groups are expanded.
    pub fn imports(&self, own: &[String], children: &[String]) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for (at, word) in self.words() {
            let (mut base, mut next) = match word {
                "crate" => (Vec::new(), at + 2),
                "super" if !self.follows(at, &["super", "::"]) => (above(own), at + 2),
                "self" if !self.follows(at, &["::"]) => (own.to_vec(), at + 2),
                _ if self.follows(at, &["use"]) && children.iter().any(|child| child == word) => {
                    (own.to_vec(), at)
                }
                _ => continue,
            };
            if next > at && self.symbol(at + 1) != Some("::") {
                continue;
            }
            while self.symbol(next) == Some("super") && self.symbol(next + 1) == Some("::") {
                (base, next) = (above(&base), next + 2);
            }
            self.expand(next, base, &mut found);
        }
        found
    }

    /// Adds the path at `at` below `base`, or each path of the group there; returns its end.
    fn expand(
        &self,
        mut at: usize,
        mut base: Vec<String>,
        found: &mut Vec<(usize, Vec<String>)>,
    ) -> usize {
        let start = at;
        loop {
            match self.symbol(at) {
                Some("{") => {
                    at += 1;
                    while !matches!(self.symbol(at), None | Some("}")) {
                        at = self.expand(at, base.clone(), found);
                        while !matches!(self.symbol(at), None | Some("," | "}")) {
                            at += 1; // `as name`
                        }
                        at += usize::from(self.symbol(at) == Some(","));
                    }
                    return at + 1;
                }
                Some("self") => {}
                Some(word) => base.push(word.to_string()),
                None => return at,
            }
            at += 1;
            if self.symbol(at) != Some("::") {
                found.push((start, base));
                return at;
            }
            at += 1;
        }
    }
}

fn above(path: &[String]) -> Vec<String> {
    path[..path.len().saturating_sub(1)].to_vec()
}
