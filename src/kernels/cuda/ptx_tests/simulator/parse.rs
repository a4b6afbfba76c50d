//! The text of a module in PTX, read.

use std::collections::HashMap;

use super::arithmetic::{Function, function};
use super::program::{
    Address, Instruction, Kernel, Operation, Register, Row, SHARED, Shuffle, Space,
};

/// The kernels of a module by name.
///
/// # Errors
/// Names the first instruction that is not known.
pub fn parse(text: &str) -> Result<HashMap<String, Kernel>, String> {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut kernels = HashMap::new();
    for piece in text.split(".visible .entry ").skip(1) {
        let (name, rest) = piece.split_once('(').ok_or("an entry without a name")?;
        let (parameters, rest) = rest.split_once(')').ok_or("an entry without parameters")?;
        let (_, body) = rest.split_once('{').ok_or("an entry without a body")?;
        let (body, _) = body.rsplit_once("\n}").ok_or("an entry without an end")?;
        let kernel = Parser::default().kernel(name, parameters, body);
        let kernel = kernel.map_err(|what| format!("{name}: {what}"))?;
        kernels.insert(name.trim().to_owned(), kernel);
    }
    Ok(kernels)
}

#[derive(Default)]
struct Parser {
    names: HashMap<String, Register>,
    registers: Vec<Row>,
    special: Vec<(Register, String)>,
    parameters: Vec<String>,
    labels: HashMap<String, usize>,
}

impl Parser {
    fn kernel(mut self, name: &str, parameters: &str, body: &str) -> Result<Kernel, String> {
        let mut sizes = Vec::new();
        for parameter in parameters.split(',') {
            let words: Vec<&str> = parameter.split_whitespace().collect();
            let [".param", kind, .., name] = words[..] else {
                return Err(format!("a parameter {parameter} of {name}"));
            };
            sizes.push(bytes_of(kind.trim_start_matches('.'))?);
            self.parameters.push(name.to_owned());
        }
        let statements = self.statements(body);
        let mut code = Vec::new();
        for text in statements {
            let made = self.instruction(&text);
            code.push(made.map_err(|what| format!("{what}: {text}"))?);
        }
        Ok(Kernel {
            code,
            registers: self.registers,
            special: self.special,
            parameters: sizes,
        })
    }

    /// Instructions as text; labels are kept, declarations and braces left out.
    fn statements(&mut self, body: &str) -> Vec<String> {
        let mut statements = Vec::new();
        for part in body.split(';') {
            let mut part = part.trim();
            loop {
                let word = part.split_whitespace().next().unwrap_or("");
                if let Some(label) = word.strip_suffix(':') {
                    self.labels.insert(label.to_owned(), statements.len());
                    part = part[word.len()..].trim_start();
                } else if let Some(inside) = part.strip_prefix(['{', '}']) {
                    part = inside.trim_start();
                } else {
                    break;
                }
            }
            if !part.is_empty() && !part.starts_with('.') {
                let words: Vec<&str> = part.split_whitespace().collect();
                statements.push(words.join(" "));
            }
        }
        statements
    }

    fn instruction(&mut self, text: &str) -> Result<Instruction, String> {
        let (mut rest, mut condition) = (text, None);
        if let Some(guarded) = text.strip_prefix('@') {
            let (predicate, instruction) = guarded.split_once(' ').ok_or("a condition alone")?;
            let name = predicate.trim_start_matches('!');
            condition = Some((self.register(name)?, name.len() == predicate.len()));
            rest = instruction;
        }
        let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Instruction {
            operation: self.operation(opcode, &split(operands))?,
            condition,
            text: text.to_owned(),
        })
    }

    fn operation(&mut self, opcode: &str, operands: &[&str]) -> Result<Operation, String> {
        let unknown = || format!("an instruction that is not known, {opcode}");
        let wrong = || "operands that are not known".to_owned();
        let parts: Vec<&str> = opcode.split('.').collect();
        Ok(match (&parts[..], operands) {
            (["bra"] | ["bra", "uni"], [label]) => {
                Operation::Branch(*self.labels.get(*label).ok_or("a label that is nowhere")?)
            }
            (["ret"], []) => Operation::Exit,
            (["bar", "sync"], ["0"]) => Operation::BlockBarrier,
            (["bar", "warp", "sync"], [members]) => Operation::WarpBarrier(self.register(members)?),
            (["mov", kind], [to, from]) if from.starts_with('{') => {
                let parts = self.list(from)?;
                let bits = 8 * bytes_of(kind)? as u32 / parts.len() as u32;
                Operation::Pack(self.register(to)?, parts, bits)
            }
            (["mov", kind], [to, from]) if to.starts_with('{') => {
                let names = list(to);
                let bits = 8 * bytes_of(kind)? as u32 / names.len() as u32;
                let register =
                    |&name: &&str| (name != "_").then(|| self.register(name)).transpose();
                let parts = names.iter().map(register).collect::<Result<_, _>>()?;
                Operation::Unpack(parts, self.register(from)?, bits)
            }
            (["mov", _] | ["cvta", "to", "global", "u64"], [to, from]) => {
                Operation::Move(self.register(to)?, self.register(from)?)
            }
            (["bfi", "b32"], [to, a, b, at, bits]) => {
                let from = [a, b, at, bits].map(|name| self.register(name));
                let [a, b, at, bits] = from;
                Operation::Insert(self.register(to)?, [a?, b?, at?, bits?])
            }
            (["ld", "param", _], [to, from]) => {
                let name = from.trim_matches(['[', ']']);
                let at = self.parameters.iter().position(|own| own == name);
                Operation::Parameter(self.register(to)?, at.ok_or_else(wrong)?)
            }
            (["ld", space, vector @ .., kind], [to, from]) => {
                let (space, registers) = self.access(space, vector, to)?;
                Operation::Load(space, registers, bytes_of(kind)?, self.address(from)?)
            }
            (["st", space, vector @ .., kind], [to, from]) => {
                let (space, registers) = self.access(space, vector, from)?;
                Operation::Store(space, registers, bytes_of(kind)?, self.address(to)?)
            }
            (["cp", "async", "cg" | "ca", "shared", "global"], [to, from, bytes, copied @ ..]) => {
                let copied = copied.first().map(|name| self.register(name)).transpose()?;
                let bytes = bytes.parse().map_err(|_| wrong())?;
                Operation::CopyAsync(self.address(to)?, self.address(from)?, bytes, copied)
            }
            (["cp", "async", "wait_all"], []) => Operation::WaitAll,
            (
                [
                    "ldmatrix",
                    "sync",
                    "aligned",
                    "m8n8",
                    "x4",
                    trans @ ..,
                    "shared",
                    "b16",
                ],
                [to, from],
            ) => {
                let transposed = !trans.is_empty();
                Operation::Matrices(self.list(to)?, self.address(from)?, transposed)
            }
            (
                [
                    "mma",
                    "sync",
                    "aligned",
                    "m16n8k16",
                    "row",
                    "col",
                    "f32",
                    "bf16",
                    "bf16",
                    "f32",
                ],
                [d, a, b, c],
            ) => {
                let lists = [d, a, b, c].map(|text| self.list(text));
                let [d, a, b, c] = lists;
                Operation::Multiply([d?, a?, b?, c?])
            }
            (["shfl", "sync", kind, "b32"], [to, from, lane, clamp, members]) => {
                let kind = match *kind {
                    "idx" => Shuffle::Index,
                    "up" => Shuffle::Up,
                    "down" => Shuffle::Down,
                    "bfly" => Shuffle::Xor,
                    _ => return Err(unknown()),
                };
                let (to, valid) = to
                    .split_once('|')
                    .map_or((*to, None), |(a, b)| (a, Some(b)));
                Operation::Shuffle {
                    kind,
                    to: self.register(to)?,
                    valid: valid.map(|name| self.register(name)).transpose()?,
                    from: self.register(from)?,
                    lane: self.register(lane)?,
                    clamp: self.register(clamp)?,
                    members: self.register(members)?,
                }
            }
            (["vote", "sync", "ballot", "b32"], [to, predicate, members]) => Operation::Ballot(
                self.register(to)?,
                self.register(predicate)?,
                self.register(members)?,
            ),
            (_, [to, operands @ ..]) => {
                let from = operands.iter().map(|name| self.register(name));
                let from = from.collect::<Result<Vec<_>, _>>()?;
                let to = self.register(to)?;
                match (function(opcode).ok_or_else(unknown)?, &from[..]) {
                    (Function::One(f), &[a]) => Operation::One(f, to, a),
                    (Function::Two(f), &[a, b]) => Operation::Two(f, to, [a, b]),
                    (Function::Three(f), &[a, b, c]) => Operation::Three(f, to, [a, b, c]),
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(unknown()),
        })
    }

    fn access(
        &mut self,
        space: &str,
        vector: &[&str],
        registers: &str,
    ) -> Result<(Space, Vec<Register>), String> {
        let space = match space {
            "global" => Space::Global,
            "shared" => Space::Shared,
            _ => return Err(format!("a space that is not known, {space}")),
        };
        let registers = match registers.starts_with('{') {
            true => self.list(registers)?,
            false => vec![self.register(registers)?],
        };
        let count = match vector {
            [] => 1,
            ["v2"] => 2,
            ["v4"] => 4,
            _ => 0,
        };
        match count == registers.len() {
            true => Ok((space, registers)),
            false => Err(format!("an access {vector:?} that is not known")),
        }
    }

    fn address(&mut self, text: &str) -> Result<Address, String> {
        let text = text.trim_matches(['[', ']']);
        let (base, offset) = text.split_once('+').unwrap_or((text, "0"));
        Ok(Address {
            base: self.register(base)?,
            offset: number(offset).ok_or_else(|| format!("an address {text}"))?,
        })
    }

    fn list(&mut self, text: &str) -> Result<Vec<Register>, String> {
        list(text)
            .into_iter()
            .map(|name| self.register(name))
            .collect()
    }

    /// A register by name, or a constant.
    fn register(&mut self, name: &str) -> Result<Register, String> {
        if let Some(&register) = self.names.get(name) {
            return Ok(register);
        }
        let value = match name {
            "shared" => SHARED,
            _ if name.starts_with('%') => 0,
            _ => number(name).ok_or_else(|| format!("a name that is not known, {name}"))?,
        };
        let register = self.registers.len();
        self.registers.push([value; 32]);
        self.names.insert(name.to_owned(), register);
        if name.contains('.') && name.starts_with('%') {
            self.special.push((register, name.to_owned()));
        }
        Ok(register)
    }
}

/// Operands, which commas part outside of braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, sign) in text.char_indices() {
        match sign {
            '{' => inside = true,
            '}' => inside = false,
            ',' if !inside => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn list(text: &str) -> Vec<&str> {
    text.trim_matches(['{', '}'])
        .split(',')
        .map(str::trim)
        .collect()
}

/// A constant's bits.
fn number(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0d")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    text.parse::<i64>()
        .map(|n| n as u64)
        .or_else(|_| text.parse())
        .ok()
}

fn bytes_of(kind: &str) -> Result<usize, String> {
    match kind {
        "b8" | "u8" => Ok(1),
        "b16" | "u16" => Ok(2),
        "b32" | "u32" | "s32" | "f32" => Ok(4),
        "b64" | "u64" | "s64" | "f64" => Ok(8),
        _ => Err(format!("a type that is not known, {kind}")),
    }
}
