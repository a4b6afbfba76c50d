//! What the tests of the documents ask of Markdown.

use std::fs;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

pub struct Document {
    /// From the root of the repository.
    pub path: String,
    text: String,
}

/// A fenced block.
pub struct Block {
    pub path: String,
    /// The line of its first line of text, from 1.
    pub line: usize,
    pub language: String,
    pub text: String,
}

impl Document {
    pub fn read(root: &Path, path: &str) -> Self {
        let text = fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self {
            path: path.to_owned(),
            text,
        }
    }

    fn events(&self) -> impl Iterator<Item = (usize, Event<'_>)> {
        let line = |at: usize| self.text[..at].matches('\n').count() + 1;
        let parser = Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter();
        parser.map(move |(event, range)| (line(range.start), event))
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (line, event) in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    open = Some(Block {
                        path: self.path.clone(),
                        line: line + 1,
                        language: language.to_string(),
                        text: String::new(),
                    });
                }
                Event::Text(text) => {
                    if let Some(block) = &mut open {
                        block.text += &text;
                    }
                }
                Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
                _ => {}
            }
        }
        blocks
    }

    /// Targets of links and images, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let target = |(line, event)| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some((line, dest_url.to_string()))
            }
            _ => None,
        };
        self.events().filter_map(target).collect()
    }

    /// Code spans, with their lines.
    pub fn code(&self) -> Vec<(usize, String)> {
        let code = |(line, event)| match event {
            Event::Code(code) => Some((line, code.to_string())),
            _ => None,
        };
        self.events().filter_map(code).collect()
    }
}

impl Block {
    /// The commands of a block of shell, with their lines; continued lines are joined, comments dropped.
    pub fn commands(&self) -> Vec<(usize, String)> {
        let mut commands = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim_end();
            if open.is_none() && (line.is_empty() || line.starts_with('#')) {
                continue;
            }
            let (at, mut command) = open.take().unwrap_or((self.line + number, String::new()));
            match line.strip_suffix('\\') {
                Some(part) => {
                    command += part;
                    open = Some((at, command));
                }
                None => commands.push((at, command + line.trim_start_matches(' '))),
            }
        }
        commands
    }
}

/// The anchors of a document's headings, as they are made on code hosts.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then_some(title.trim())
    });
    let anchor = |title: &str| {
        let title = title.to_lowercase().replace(' ', "-");
        title
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect()
    };
    headings.map(anchor).collect()
}
