//! `cpp/shim_cuda.cpp` as safe functions: CUDA graphs, and facts about a device.
//!
//! It is a shared object of its own, carried inside this binary and loaded after libtorch's CUDA
//! part.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, anyhow, bail};

use crate::gpu::cuda;

/// The compiled shim; empty when it was built without CUDA's headers.
static OBJECT: &[u8] = include_bytes!(env!("PBA_CUDA_SHIM"));

/// Declares the functions of the shim: a field for each, and what loads them.
macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        struct Shim {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)*
        }

        impl Shim {
            /// # Safety
            /// `library` is a handle of the loaded shim.
            unsafe fn bind(library: *mut c_void) -> anyhow::Result<Shim> {
                Ok(Shim {
                    $($field: {
                        // SAFETY: the caller's handle, and a name that ends with NUL.
                        let symbol = unsafe { libc::dlsym(library, $symbol.as_ptr()) };
                        if symbol.is_null() {
                            bail!("{:?} is missing", $symbol);
                        }
                        // SAFETY: the type is that of the definition in cpp/shim_cuda.cpp.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $answer)?,
                            >(symbol)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    error = c"pba_cuda_error" () -> *const c_char;
    graph_new = c"pba_graph_new" (*mut *mut c_void) -> c_int;
    graph_free = c"pba_graph_free" (*mut c_void);
    graph_begin = c"pba_graph_begin" (*mut c_void) -> c_int;
    graph_end = c"pba_graph_end" (*mut c_void) -> c_int;
    graph_replay = c"pba_graph_replay" (*mut c_void) -> c_int;
    device = c"pba_cuda_device" (c_int, *mut c_char, c_int, *mut u64, *mut u64) -> c_int;
}

impl Shim {
    fn get() -> anyhow::Result<&'static Shim> {
        static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| Shim::load().map_err(|error| format!("{error:#}")));
        loaded.as_ref().map_err(|error| anyhow!("the CUDA shim: {error}"))
    }

    fn load() -> anyhow::Result<Shim> {
        cuda::load().map_err(|error| anyhow!("{error}"))?;
        if OBJECT.is_empty() {
            bail!("this pba-trainer was built without CUDA's headers");
        }
        // SAFETY: the name is NUL-terminated.
        let descriptor = unsafe { libc::memfd_create(c"pba-cuda-shim".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("cannot make a file in memory");
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let mut file = unsafe { File::from_raw_fd(descriptor) };
        file.write_all(OBJECT)?;
        let library = cuda::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
        // SAFETY: the library is the shim.
        unsafe { Shim::bind(library) }
    }

    fn check(&self, code: c_int) -> anyhow::Result<()> {
        if code != 0 {
            // SAFETY: the shim keeps a NUL-terminated message per thread until its next error.
            let message = unsafe { CStr::from_ptr((self.error)()) };
            // What follows the first line is a stack trace of libtorch's.
            bail!("CUDA: {}", message.to_string_lossy().lines().next().unwrap_or_default());
        }
        Ok(())
    }
}

/// A GPU's name and memory.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) memory_free_bytes: u64,
    pub(crate) memory_total_bytes: u64,
}

impl Gpu {
    /// Memory in use, by everyone.
    pub(crate) fn memory_used_bytes(&self) -> u64 {
        self.memory_total_bytes - self.memory_free_bytes
    }
}

/// Name and memory of a GPU.
pub(crate) fn gpu(device: usize) -> anyhow::Result<Gpu> {
    let shim = Shim::get()?;
    let mut name = [0 as c_char; 256];
    let (mut memory_free_bytes, mut memory_total_bytes) = (0, 0);
    // SAFETY: the out parameters are valid, and `name` has the length that is passed.
    shim.check(unsafe {
        (shim.device)(
            device as c_int,
            name.as_mut_ptr(),
            name.len() as c_int,
            &mut memory_free_bytes,
            &mut memory_total_bytes,
        )
    })?;
    // SAFETY: the shim ends the name with a NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Gpu { name, memory_free_bytes, memory_total_bytes })
}

/// Work of a stream, recorded once and run many times by one call.
#[derive(Debug)]
pub(crate) struct Graph {
    pointer: *mut c_void,
}

// SAFETY: a graph belongs to whoever holds it; libtorch's graph has no thread of its own.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `body` queues on the current stream, which must not be the default one.
    pub(crate) fn capture(body: impl FnOnce()) -> anyhow::Result<Graph> {
        let shim = Shim::get()?;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: `pointer` is valid for the write.
        shim.check(unsafe { (shim.graph_new)(&mut pointer) })?;
        let graph = Graph { pointer };
        // SAFETY: the graph was made above and is not capturing.
        shim.check(unsafe { (shim.graph_begin)(graph.pointer) })?;
        body();
        // SAFETY: the graph is capturing on this thread.
        shim.check(unsafe { (shim.graph_end)(graph.pointer) })?;
        Ok(graph)
    }

    /// Queues the recorded work on the current stream.
    pub(crate) fn replay(&self) -> anyhow::Result<()> {
        let shim = Shim::get()?;
        // SAFETY: the graph was captured.
        shim.check(unsafe { (shim.graph_replay)(self.pointer) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(shim) = Shim::get() {
            // SAFETY: the pointer came from graph_new, and is freed once.
            unsafe { (shim.graph_free)(self.pointer) }
        }
    }
}
