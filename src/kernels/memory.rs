//! The allocator of host memory, and how much memory there is.
//!
//! *Why*: a step walks over gigabytes. glibc gives large blocks back to the system when they are
//! freed, which hands them out again page by page, and a page of 4 KiB costs an address translation
//! every few hundred elements: over a large model an optimizer update then takes four times as long
//! (`benches/RESULTS.md`). Two settings of glibc and one `madvise` per large block end that. A general
//! allocator such as mimalloc would be a C library with settings of its own for the same two things.

mod meter;

use std::alloc::{GlobalAlloc, Layout, System};

pub use meter::{allocated, allow};

/// Blocks of at least this size lie in pages of this size where the system has them.
const HUGE: usize = 2 << 20;

/// Makes glibc's allocator keep freed memory for the next step; does nothing elsewhere. Call it at the
/// start of a program.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: two settings of the allocator, which takes a lock of its own to change them; where it
    // refuses one, memory goes the usual way.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Makes glibc's allocator give memory back as soon as it is freed; does nothing elsewhere. For a
/// process that shall take no more than it holds. Call it at the start of a program.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// Has no image of this process written to the disk where it is aborted; does nothing outside Linux.
pub fn never_dump() {
    #[cfg(target_os = "linux")]
    // SAFETY: both calls are given a limit of this frame, the first to fill it.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 {
            limit.rlim_cur = 0;
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
        }
    }
}

/// The bytes that this process may yet take, as Linux estimates them: what is available, and what the
/// process has, since of that nobody knows how much is free again. `None` elsewhere.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let own = read("/proc/self/status").and_then(|status| kilobytes(&status, "RssAnon:"));
    let free = kilobytes(&read("/proc/meminfo")?, "MemAvailable:")?;
    Some(free.saturating_add(own.unwrap_or(0)))
}

/// The most bytes that this process has held, as Linux counts them; `None` elsewhere.
pub fn peak() -> Option<u64> {
    kilobytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmHWM:",
    )
}

/// The line `{key} N kB` of proc(5)'s files, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// The system's allocator, with huge pages for large blocks. For a program's `#[global_allocator]`.
#[derive(Debug)]
pub struct HugePages;

// SAFETY: all memory comes from and goes back to the system's allocator, with the layout that
// `aligned` makes of the caller's, the same each time.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !meter::take(layout.size()) {
            return std::ptr::null_mut();
        }
        let layout = aligned(layout);
        // SAFETY: the size is the caller's, not 0.
        let block = unsafe { System.alloc(layout) };
        advise(block, layout);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < HUGE {
            if !meter::take(layout.size()) {
                return std::ptr::null_mut();
            }
            // SAFETY: as above.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above; the block has the size.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        meter::give(layout.size());
        // SAFETY: allocated with this layout.
        unsafe { System.dealloc(block, aligned(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() < HUGE && size < HUGE {
            if !meter::take(size) {
                return std::ptr::null_mut();
            }
            meter::give(layout.size());
            // SAFETY: allocated with this layout.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: both blocks have the smaller of the two sizes, and are apart.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Large blocks begin where a huge page can.
fn aligned(layout: Layout) -> Layout {
    match layout.size() >= HUGE {
        true => layout.align_to(HUGE).unwrap_or(layout),
        false => layout,
    }
}

fn advise(block: *mut u8, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.size() >= HUGE && !block.is_null() {
        // SAFETY: advice on whole pages inside the block; refused, it changes nothing.
        unsafe {
            libc::madvise(
                block.cast(),
                layout.size() / HUGE * HUGE,
                libc::MADV_HUGEPAGE,
            )
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, layout);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:  900 kB\nMemAvailable:     256 kB\nRssAnon:\t 8 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(262_144));
        assert_eq!(kilobytes(text, "RssAnon:"), Some(8192));
        assert_eq!(kilobytes(text, "MemFree:"), None);
        assert_eq!(kilobytes("MemAvailable: many kB", "MemAvailable:"), None);
        let most = format!("MemAvailable: {} kB", u64::MAX);
        assert_eq!(kilobytes(&most, "MemAvailable:"), None);
        #[cfg(target_os = "linux")]
        assert!(available().unwrap() > 1 << 20);
    }

    #[test]
    fn blocks_keep_what_is_in_them_while_they_grow_and_shrink() {
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let sizes = [100, HUGE - 1, HUGE, 3 * HUGE + 5, HUGE + 9, 64];
        // SAFETY: every block is used within its size and freed with its layout.
        unsafe {
            let mut block = HugePages.alloc_zeroed(layout(sizes[0]));
            block.add(63).write(7);
            for pair in sizes.windows(2) {
                block = HugePages.realloc(block, layout(pair[0]), pair[1]);
                assert_eq!(block.add(63).read(), 7);
                assert!(pair[1] < HUGE || block.addr().is_multiple_of(HUGE));
                block.add(pair[1] - 1).write(7);
            }
            HugePages.dealloc(block, layout(sizes[5]));
            let zeros = HugePages.alloc_zeroed(layout(2 * HUGE));
            let all = std::slice::from_raw_parts(zeros, 2 * HUGE);
            assert!(all.iter().all(|&byte| byte == 0));
            HugePages.dealloc(zeros, layout(2 * HUGE));
        }
    }
}
