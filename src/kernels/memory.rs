//! The allocator's way with large blocks.

/// Tells glibc's allocator to keep freed memory for the next step instead of giving it back to the
/// system, which would hand it out page by page again; elsewhere nothing. For the start of a program.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: two settings of the allocator, which takes a lock of its own to change them; where it
    // refuses one, memory goes the usual way.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}
