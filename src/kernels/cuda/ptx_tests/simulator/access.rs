//! What a warp's lanes do to memory.

use super::block::Block;
use super::memory::Memory;
use super::program::{Address, Register, SHARED, Space};
use super::warp::{Warp, each};

/// A `cp.async` that has not ended.
pub struct Copy {
    lane: usize,
    to: usize,
    from: u64,
    bytes: usize,
    copied: usize,
}

impl Warp {
    /// Where in memory of its own an address is.
    fn place<'a>(
        &self,
        block: &'a mut Block,
        space: Space,
        at: Address,
        lane: usize,
    ) -> Result<(&'a mut Memory, u64), String> {
        let base = self.registers[at.base][lane];
        match space {
            Space::Global => block.global.place(base.wrapping_add(at.offset)),
            Space::Shared => {
                let at = u64::from((base.wrapping_add(at.offset)) as u32);
                Ok((&mut block.shared, at.wrapping_sub(SHARED)))
            }
        }
    }

    pub fn load(
        &mut self,
        block: &mut Block,
        space: Space,
        (to, bytes): (&[Register], usize),
        at: Address,
        lanes: u32,
    ) -> Result<(), String> {
        for lane in each(lanes) {
            let thread = self.thread(block, lane);
            let (memory, place) = self.place(block, space, at, lane)?;
            let place = memory.check(place, bytes * to.len())?;
            let values = memory.read(thread, place, bytes * to.len())?;
            for (&to, value) in to.iter().zip(values.chunks_exact(bytes)) {
                self.registers[to][lane] = bits_of(value);
            }
        }
        Ok(())
    }

    pub fn store(
        &mut self,
        block: &mut Block,
        space: Space,
        (from, bytes): (&[Register], usize),
        at: Address,
        lanes: u32,
    ) -> Result<(), String> {
        for lane in each(lanes) {
            let thread = self.thread(block, lane);
            let mut values = [0; 32];
            for (value, &from) in values.chunks_exact_mut(bytes).zip(from) {
                value.copy_from_slice(&self.registers[from][lane].to_le_bytes()[..bytes]);
            }
            let (memory, place) = self.place(block, space, at, lane)?;
            let place = memory.check(place, bytes * from.len())?;
            memory.write(thread, place, &values[..bytes * from.len()])?;
        }
        Ok(())
    }

    pub fn copy(
        &mut self,
        block: &mut Block,
        [to, from]: [Address; 2],
        bytes: usize,
        copied: Option<Register>,
        lanes: u32,
    ) -> Result<(), String> {
        for lane in each(lanes) {
            let thread = self.thread(block, lane);
            let copied =
                copied.map_or(bytes, |copied| self.registers[copied][lane] as u32 as usize);
            if copied > bytes {
                return Err(format!("a copy of {copied} bytes to {bytes}"));
            }
            let source = self.registers[from.base][lane].wrapping_add(from.offset);
            if !source.is_multiple_of(bytes as u64) {
                return Err("an asynchronous copy from a misaligned address".into());
            }
            let (shared, place) = self.place(block, Space::Shared, to, lane)?;
            let to = shared.check(place, bytes)?;
            shared.begin_copy(thread, to, bytes)?;
            self.copies.push(Copy {
                lane,
                to,
                from: source,
                bytes,
                copied,
            });
        }
        Ok(())
    }

    pub fn wait_all(&mut self, block: &mut Block, lanes: u32) -> Result<(), String> {
        let (ended, flying) = std::mem::take(&mut self.copies)
            .into_iter()
            .partition(|copy| lanes >> copy.lane & 1 != 0);
        self.copies = flying;
        let ended: Vec<Copy> = ended;
        for copy in ended {
            let thread = self.thread(block, copy.lane);
            let mut values = vec![0; copy.bytes];
            if copy.copied > 0 {
                let (memory, place) = block.global.place(copy.from)?;
                // Aligned it is; no byte more than what is copied is read.
                let place = memory.inside(place, copy.copied)?;
                values[..copy.copied].copy_from_slice(memory.read(thread, place, copy.copied)?);
            }
            block.shared.end_copy(thread, copy.to, &values)?;
        }
        Ok(())
    }

    /// Lane 8 i + r has where row r of matrix i is; lane 4 g + t gets elements 2 t and 2 t + 1 of row g.
    pub fn matrices(
        &mut self,
        block: &mut Block,
        to: &[Register],
        at: Address,
        transposed: bool,
    ) -> Result<(), String> {
        let mut rows = [[0u8; 16]; 32];
        for (lane, row) in rows.iter_mut().enumerate() {
            let thread = self.thread(block, lane);
            let (shared, place) = self.place(block, Space::Shared, at, lane)?;
            let place = shared.check(place, 16)?;
            row.copy_from_slice(shared.read(thread, place, 16)?);
        }
        for (rows, &to) in rows.chunks_exact(8).zip(to) {
            let element =
                |row: usize, column: usize| bits_of(&rows[row][2 * column..2 * column + 2]);
            for (lane, value) in self.registers[to].iter_mut().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                let [low, high] = [2 * t, 2 * t + 1].map(|at| match transposed {
                    true => element(at, g),
                    false => element(g, at),
                });
                *value = low | high << 16;
            }
        }
        Ok(())
    }
}

fn bits_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |all, &byte| all << 8 | u64::from(byte))
}
