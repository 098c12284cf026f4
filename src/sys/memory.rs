//! What this process holds of the machine's memory beyond what it works with. Without effect where a system lacks the
//! means.

use super::os::memory;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Puts text into memory that can be handed on as a descriptor, closed on exec. The name is for people.
///
/// # Errors
/// ENOMEM, EMFILE and the like, and where a system's shared memory cannot be written to like a file.
pub fn sealed(name: &CStr, text: &[u8]) -> io::Result<OwnedFd> {
    let fd = memory::create(name, text.len())?;
    let file = File::from(fd);
    file.write_all_at(text, 0)?;
    Ok(file.into())
}

/// The text in such memory, or in a short file.
///
/// # Errors
/// What reading answers; `InvalidData` for more than 64 MiB.
pub fn content(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    const MOST: u64 = 64 * 1024 * 1024;
    let file = File::from(fd.try_clone()?);
    let size = file.metadata()?.len();
    let size = usize::try_from(size).ok().filter(|_| size <= MOST).ok_or(io::ErrorKind::InvalidData)?;
    let mut text = vec![0; size];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// Bytes from which on an allocation counts as large.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 128 * 1024;

/// Lets all threads share one heap: few of them allocate much, and each heap of its own keeps pages. What is large is
/// mapped by itself for good, also after the first large piece was freed, so that it goes back to the system at once
/// instead of leaving holes. To be called before threads are started.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a plain call; no other thread exists that could be allocating.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives back what was needed to come up and hardly will be again: free pages of the heap, and the program's own
/// code, which comes back from the file as far as it is executed.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a plain call.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the callback fits the type that the call wants and uses nothing beyond the call.
    unsafe {
        libc::dl_iterate_phdr(Some(drop_code), std::ptr::null_mut());
    }
}

/// One segment of a program, as the kernel of this word size describes it.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
type Header = libc::Elf64_Phdr;
#[cfg(all(target_os = "linux", target_pointer_width = "32"))]
type Header = libc::Elf32_Phdr;

/// Called with the program itself first, and ends the walk there.
#[cfg(target_os = "linux")]
unsafe extern "C" fn drop_code(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a valid description with as many headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return 1;
        }
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    // Only what nothing has ever written to, so that the file's pages are the same.
    let code = |h: &&Header| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(code) {
        let page = 4096;
        let begin = (base + header.p_vaddr) / page * page;
        let end = base + header.p_vaddr + header.p_memsz;
        if let (Ok(begin), Ok(length)) = (usize::try_from(begin), usize::try_from(end.saturating_sub(begin))) {
            // SAFETY: these pages are a private mapping of a file that is never written to: read again, they are the
            // same.
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(begin), length, libc::MADV_DONTNEED) };
        }
    }
    1
}

/// The most memory this process has had resident so far, in bytes.
#[must_use]
pub fn own_peak() -> u64 {
    // SAFETY: an all-zero rusage is a valid value, and the call writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    #[allow(clippy::useless_conversion)] // A long is 32 bits wide on some targets.
    let peak = u64::try_from(i64::from(usage.ru_maxrss)).unwrap_or(0);
    // macOS counts bytes, the others KiB.
    if cfg!(target_os = "macos") { peak } else { peak * 1024 }
}
