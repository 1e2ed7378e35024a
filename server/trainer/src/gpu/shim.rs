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
use std::ptr;
use std::sync::LazyLock;

use anyhow::{Context, anyhow, ensure};

use crate::gpu::cuda;
use crate::torch;

/// The compiled shim; empty when it was built without CUDA's headers.
static OBJECT: &[u8] = include_bytes!(env!("PBA_CUDA_SHIM"));

/// The functions of the shim, as `pba_cuda` in `cpp/shim_cuda.cpp` lists them. Each gives null, or why it
/// failed.
#[repr(C)]
struct Shim {
    graph_new: unsafe extern "C" fn(*mut *mut c_void) -> *const c_char,
    graph_free: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    graph_begin: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const c_char,
    graph_end: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    graph_replay: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    device: unsafe extern "C" fn(c_int, *mut c_char, usize, *mut usize, *mut usize) -> *const c_char,
    use_device: unsafe extern "C" fn(c_int) -> *const c_char,
    empty_cache: unsafe extern "C" fn() -> *const c_char,
}

impl Shim {
    fn get() -> anyhow::Result<&'static Shim> {
        static LOADED: LazyLock<Result<&'static Shim, String>> =
            LazyLock::new(|| Shim::load().map_err(|error| format!("{error:#}")));
        LOADED.as_ref().copied().map_err(|error| anyhow!("the CUDA shim: {error}"))
    }

    fn load() -> anyhow::Result<&'static Shim> {
        cuda::load().map_err(|error| anyhow!("{error}"))?;
        ensure!(!OBJECT.is_empty(), "this pba-trainer was built without CUDA's headers");
        // SAFETY: the name is NUL-terminated.
        let descriptor = unsafe { libc::memfd_create(c"pba-cuda-shim".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("cannot make a file in memory");
        }
        // SAFETY: the descriptor is new, and nothing else has it.
        let mut file = unsafe { File::from_raw_fd(descriptor) };
        file.write_all(OBJECT)?;
        let library = cuda::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
        // SAFETY: the handle is of the shim, which stays loaded. Its table is null or as `Shim` says.
        let shim = unsafe { libc::dlsym(library, c"pba_cuda".as_ptr()).cast::<Shim>().as_ref() };
        shim.context("pba_cuda is missing")
    }
}

/// Whether the shim is in this binary.
pub(crate) fn is_built() -> bool {
    !OBJECT.is_empty()
}

/// Whether a function of the shim succeeded.
fn check(message: *const c_char) -> anyhow::Result<()> {
    torch::check(message, "CUDA")
}

/// A GPU's name and memory.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) memory_free_bytes: usize,
    pub(crate) memory_total_bytes: usize,
}

impl Gpu {
    /// Memory in use, by everyone.
    pub(crate) fn memory_used_bytes(&self) -> u64 {
        (self.memory_total_bytes - self.memory_free_bytes) as u64
    }
}

/// Name and memory of a GPU.
pub(crate) fn gpu(device: usize) -> anyhow::Result<Gpu> {
    let shim = Shim::get()?;
    let mut name = [0 as c_char; 256];
    let (mut memory_free_bytes, mut memory_total_bytes) = (0, 0);
    let (free, total) = (&mut memory_free_bytes, &mut memory_total_bytes);
    // SAFETY: the out parameters are valid, and `name` has the length that is passed.
    check(unsafe { (shim.device)(device as c_int, name.as_mut_ptr(), name.len(), free, total) })?;
    // SAFETY: the shim ends the name with a NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Gpu { name, memory_free_bytes, memory_total_bytes })
}

/// Makes a GPU the current one of this thread, whose streams graphs are captured on.
pub(crate) fn use_device(device: usize) -> anyhow::Result<()> {
    // SAFETY: takes a number, which CUDA checks.
    check(unsafe { (Shim::get()?.use_device)(device as c_int) })
}

/// Gives the memory that libtorch holds and does not use back to the GPUs.
pub(crate) fn empty_cache() -> anyhow::Result<()> {
    // SAFETY: takes nothing; libtorch synchronises it.
    check(unsafe { (Shim::get()?.empty_cache)() })
}

/// Work of a stream, recorded once and run many times by one call.
pub(crate) struct Graph {
    shim: &'static Shim,
    pointer: *mut c_void,
}

impl Graph {
    /// Records what `body` queues on the current stream, which must not be the default one. Graphs that never
    /// run at the same time may share memory: `beside` is another of them.
    pub(crate) fn capture(beside: Option<&Graph>, body: impl FnOnce()) -> anyhow::Result<Graph> {
        let mut graph = Graph { shim: Shim::get()?, pointer: ptr::null_mut() };
        // SAFETY: `pointer` is valid for the write.
        check(unsafe { (graph.shim.graph_new)(&mut graph.pointer) })?;
        let beside = beside.map_or(ptr::null_mut(), |graph| graph.pointer);
        // SAFETY: the graph was made above and is not capturing; the other is null or was captured.
        check(unsafe { (graph.shim.graph_begin)(graph.pointer, beside) })?;
        body();
        // SAFETY: the graph is capturing on this thread.
        check(unsafe { (graph.shim.graph_end)(graph.pointer) })?;
        Ok(graph)
    }

    /// Queues the recorded work on the current stream.
    pub(crate) fn replay(&self) -> anyhow::Result<()> {
        // SAFETY: the graph was captured.
        check(unsafe { (self.shim.graph_replay)(self.pointer) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the pointer came from graph_new and is freed once, or is null, which frees nothing.
        unsafe { (self.shim.graph_free)(self.pointer) };
    }
}
