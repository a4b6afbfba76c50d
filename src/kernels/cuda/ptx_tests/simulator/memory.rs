//! Memory whose every access is checked: that it is aligned and inside, that bytes were written before
//! they are read, and that threads which touch the same bytes are ordered by a barrier.

/// The thread that accesses memory, and how far its block and its warp are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    pub block: u32,
    pub thread: u32,
    /// Barriers of the block so far.
    pub epoch: u32,
    /// Barriers of the warp so far.
    pub turn: u32,
}

impl Thread {
    fn warp(self) -> u32 {
        self.thread / 32
    }
}

/// Who read bytes last, as far as it matters to who writes them.
#[derive(Clone, Copy)]
enum Readers {
    Nobody,
    /// Threads of one warp, in the epoch.
    Warp {
        block: u32,
        epoch: u32,
        warp: u32,
    },
    /// Several warps of a block, in the epoch.
    Warps {
        block: u32,
        epoch: u32,
    },
    Blocks,
}

/// What is known of a byte.
#[derive(Clone, Copy)]
struct Cell {
    written: bool,
    /// An asynchronous copy still writes them.
    flying: bool,
    writer: Option<Thread>,
    readers: Readers,
}

const FRESH: Cell = Cell {
    written: false,
    flying: false,
    writer: None,
    readers: Readers::Nobody,
};

/// A piece of memory.
pub struct Memory {
    pub bytes: Vec<u8>,
    cells: Vec<Cell>,
}

impl Memory {
    /// A tensor's memory.
    pub fn of(bytes: Vec<u8>) -> Self {
        let written = Cell {
            written: true,
            ..FRESH
        };
        let cells = vec![written; bytes.len()];
        Self { bytes, cells }
    }

    /// Nothing is written yet.
    pub fn empty(bytes: usize) -> Self {
        Self {
            bytes: vec![0xff; bytes],
            cells: vec![FRESH; bytes],
        }
    }

    /// Checks that an access is aligned and inside.
    pub fn check(&self, at: u64, bytes: usize) -> Result<usize, String> {
        if !at.is_multiple_of(bytes as u64) {
            return Err(format!("{bytes} bytes at {at}, which is misaligned"));
        }
        self.inside(at, bytes)
    }

    pub fn inside(&self, at: u64, bytes: usize) -> Result<usize, String> {
        match at.checked_add(bytes as u64) {
            Some(end) if end <= self.bytes.len() as u64 => Ok(at as usize),
            _ => Err(format!(
                "{bytes} bytes at {at} of {}: out of bounds",
                self.bytes.len()
            )),
        }
    }

    pub fn read(&mut self, thread: Thread, at: usize, bytes: usize) -> Result<&[u8], String> {
        for cell in &mut self.cells[at..at + bytes] {
            cell.read(thread)?;
        }
        Ok(&self.bytes[at..at + bytes])
    }

    pub fn write(&mut self, thread: Thread, at: usize, values: &[u8]) -> Result<(), String> {
        for cell in &mut self.cells[at..at + values.len()] {
            cell.write(thread)?;
        }
        self.bytes[at..at + values.len()].copy_from_slice(values);
        Ok(())
    }

    /// An asynchronous copy of a thread to these bytes begins.
    pub fn begin_copy(&mut self, thread: Thread, at: usize, bytes: usize) -> Result<(), String> {
        for cell in &mut self.cells[at..at + bytes] {
            cell.write(thread)?;
            cell.flying = true;
        }
        Ok(())
    }

    /// And ends.
    pub fn end_copy(&mut self, thread: Thread, at: usize, values: &[u8]) -> Result<(), String> {
        for cell in &mut self.cells[at..at + values.len()] {
            cell.flying = false;
        }
        self.write(thread, at, values)
    }
}

impl Cell {
    fn read(&mut self, me: Thread) -> Result<(), String> {
        if self.flying {
            return Err("a read of what an asynchronous copy still writes".into());
        }
        if !self.written {
            return Err("a read of what nobody has written".into());
        }
        if let Some(writer) = self.writer {
            conflict(writer, me, "reads what", "wrote")?;
        }
        let (block, epoch, warp) = (me.block, me.epoch, me.warp());
        self.readers = match self.readers {
            Readers::Nobody => Readers::Warp { block, epoch, warp },
            Readers::Warp { block: other, .. } | Readers::Warps { block: other, .. }
                if other != block =>
            {
                Readers::Blocks
            }
            Readers::Warp {
                epoch: then,
                warp: other,
                ..
            } if then == epoch && other != warp => Readers::Warps { block, epoch },
            Readers::Warps { epoch: then, .. } if then == epoch => self.readers,
            Readers::Blocks => Readers::Blocks,
            Readers::Warp { .. } | Readers::Warps { .. } => Readers::Warp { block, epoch, warp },
        };
        Ok(())
    }

    fn write(&mut self, me: Thread) -> Result<(), String> {
        if self.flying {
            return Err("a write to what an asynchronous copy still writes".into());
        }
        if let Some(writer) = self.writer {
            conflict(writer, me, "writes where", "wrote")?;
        }
        let alone = match self.readers {
            Readers::Nobody => true,
            Readers::Warp { block, epoch, warp } => {
                block == me.block && (epoch != me.epoch || warp == me.warp())
            }
            Readers::Warps { block, epoch } => block == me.block && epoch != me.epoch,
            Readers::Blocks => false,
        };
        if !alone {
            return Err(format!(
                "a race: thread {} of block {} writes what others read, without a barrier",
                me.thread, me.block
            ));
        }
        self.written = true;
        self.writer = Some(me);
        Ok(())
    }
}

/// Whether nothing orders what one thread wrote and what another does.
fn conflict(writer: Thread, me: Thread, does: &str, did: &str) -> Result<(), String> {
    let ordered = match writer.block == me.block {
        false => false,
        true if writer.thread == me.thread || writer.epoch != me.epoch => true,
        true => writer.warp() == me.warp() && writer.turn != me.turn,
    };
    match ordered {
        true => Ok(()),
        false => Err(format!(
            "a race: thread {} of block {} {does} thread {} of block {} {did}, without a barrier",
            me.thread, me.block, writer.thread, writer.block
        )),
    }
}
