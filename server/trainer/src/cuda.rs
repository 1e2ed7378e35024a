//! CUDA, found at run time by the binary that was linked without it.
//!
//! The binary links `libtorch_cpu.so` only. When that file lies beside a `libtorch_cuda.so` of
//! the same version, as in every CUDA build of PyTorch, loading the latter is all that libtorch
//! needs. It has to come before the first question about CUDA: libtorch remembers the answer.
//!
//! None of the code below that needs a GPU has run on one yet.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, anyhow, bail};

/// The version of libtorch that the binary is compiled for.
pub(crate) const LIBTORCH: &str = "2.11.0";
/// The compiled `cpp/shim_cuda.cpp`; empty when it was built without CUDA's headers.
static SHIM: &[u8] = include_bytes!(env!("PBA_CUDA_SHIM"));

/// Loads libtorch's CUDA part, once per process.
///
/// # Errors
/// When it is not there or cannot be loaded; names the first missing file.
pub(crate) fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(|| try_load().map_err(|error| format!("{error:#}"))).clone()
}

fn try_load() -> anyhow::Result<()> {
    let lib = library_folder()?;
    let version_file = lib.join("../version.py");
    let version = fs::read_to_string(&version_file)
        .with_context(|| format!("cannot tell the version of libtorch from {}", version_file.display()))?;
    if !version.contains(&format!("'{LIBTORCH}")) {
        bail!("{} is not of version {LIBTORCH}", lib.display());
    }
    open(&lib.join("libtorch_cuda.so"))?;
    if !tch::Cuda::is_available() {
        bail!("libtorch_cuda.so is loaded, but the driver offers no GPU");
    }
    Ok(())
}

/// The folder that `libtorch_cpu.so` was loaded from.
pub(crate) fn library_folder() -> anyhow::Result<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read /proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"))
        .ok_or_else(|| anyhow!("libtorch_cpu.so is not loaded"))?;
    Ok(path.parent().expect("a file has a folder").to_owned())
}

/// Loads a library for good, its symbols visible to all.
fn open(path: &Path) -> anyhow::Result<*mut c_void> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: `name` is NUL-terminated; the libraries' initialisers are libtorch's own.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: after a failure dlerror gives a NUL-terminated message.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        bail!("{}", message.to_string_lossy());
    }
    Ok(handle)
}

/// The functions of `cpp/shim_cuda.cpp`.
struct Shim {
    error: unsafe extern "C" fn() -> *const c_char,
    graph_new: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    graph_free: unsafe extern "C" fn(*mut c_void),
    graph_begin: unsafe extern "C" fn(*mut c_void) -> c_int,
    graph_end: unsafe extern "C" fn(*mut c_void) -> c_int,
    graph_replay: unsafe extern "C" fn(*mut c_void) -> c_int,
    device: unsafe extern "C" fn(c_int, *mut c_char, c_int, *mut u64, *mut u64) -> c_int,
}

impl Shim {
    fn get() -> anyhow::Result<&'static Shim> {
        static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| Shim::load().map_err(|error| format!("{error:#}")));
        loaded.as_ref().map_err(|error| anyhow!("the CUDA shim: {error}"))
    }

    fn load() -> anyhow::Result<Shim> {
        load().map_err(|error| anyhow!("{error}"))?;
        if SHIM.is_empty() {
            bail!("this pba-trainer was built without CUDA's headers");
        }
        // SAFETY: the name is NUL-terminated.
        let descriptor = unsafe { libc::memfd_create(c"pba-cuda-shim".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("cannot make a file in memory");
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let mut file = unsafe { fs::File::from_raw_fd(descriptor) };
        file.write_all(SHIM)?;
        let handle = open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
        let symbol = |name: &CStr| {
            // SAFETY: the handle is of a loaded library.
            let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if symbol.is_null() { Err(anyhow!("{name:?} is missing")) } else { Ok(symbol) }
        };
        // SAFETY: the types are those of the definitions in cpp/shim_cuda.cpp.
        unsafe {
            Ok(Shim {
                error: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const c_char>(symbol(
                    c"pba_cuda_error",
                )?),
                graph_new: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut *mut c_void) -> c_int>(
                    symbol(c"pba_graph_new")?,
                ),
                graph_free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(symbol(
                    c"pba_graph_free",
                )?),
                graph_begin: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(
                    symbol(c"pba_graph_begin")?,
                ),
                graph_end: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(
                    symbol(c"pba_graph_end")?,
                ),
                graph_replay: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(
                    symbol(c"pba_graph_replay")?,
                ),
                device: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(c_int, *mut c_char, c_int, *mut u64, *mut u64) -> c_int,
                >(symbol(c"pba_cuda_device")?),
            })
        }
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

/// What a GPU is.
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
    // SAFETY: the out parameters are valid, and `name` has the length that is said.
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
    /// Records what `body` gives the current stream, which must not be the default one.
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

    /// Gives the recorded work to the current stream.
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
