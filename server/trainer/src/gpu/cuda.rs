//! CUDA, loaded at run time into a binary that is linked without it.
//!
//! The binary links `libtorch_cpu.so` only. Where a `libtorch_cuda.so` of the same version is beside
//! it, as in every CUDA build of PyTorch, loading that is all that libtorch needs. It must be loaded
//! before libtorch is first asked for CUDA: libtorch remembers the answer.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, bail, ensure};

/// The version of libtorch that the binary is compiled for.
pub(crate) const LIBTORCH: &str = "2.11.0";
/// The variable that tells CUDA how many streams may run at the same time.
const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";

/// Lets as many streams run at the same time as the driver can, unless the environment says how many: the
/// default is 8. Called first of all, as CUDA reads it when it starts.
pub(crate) fn allow_many_streams() {
    if std::env::var_os(CONNECTIONS).is_none() {
        // SAFETY: this process has one thread yet.
        unsafe { std::env::set_var(CONNECTIONS, "32") };
    }
}

/// Loads libtorch's CUDA part, once per process.
///
/// # Errors
/// When it is not there or cannot be loaded; names the first missing file.
pub(crate) fn load() -> Result<(), String> {
    static LOADED: LazyLock<Result<(), String>> =
        LazyLock::new(|| try_load().map_err(|error| format!("{error:#}")));
    LOADED.clone()
}

/// Checks that libtorch is of the version that the binary is compiled for: with another one it may run, and
/// compute something else.
///
/// # Errors
/// When its version is another one, or is not told.
pub(crate) fn check_version() -> anyhow::Result<()> {
    let lib = library_folder()?;
    // A PyTorch has the one, a libtorch the other.
    let files = ["../version.py", "../build-version"].map(|file| lib.join(file));
    let version = files.iter().find_map(|file| fs::read_to_string(file).ok());
    let version = version.with_context(|| {
        format!(
            "cannot tell the version of libtorch: there is no {}",
            files.each_ref().map(|file| file.display().to_string()).join(" or ")
        )
    })?;
    let is_same = version.contains(&format!("'{LIBTORCH}")) || version.starts_with(LIBTORCH);
    ensure!(is_same, "the libtorch in {} is not of version {LIBTORCH}", lib.display());
    Ok(())
}

fn try_load() -> anyhow::Result<()> {
    check_version()?;
    let lib = library_folder()?;
    open(&lib.join("libtorch_cuda.so"))?;
    ensure!(tch::Cuda::is_available(), "libtorch_cuda.so is loaded, but the driver offers no GPU");
    Ok(())
}

/// The folder that `libtorch_cpu.so` was loaded from.
fn library_folder() -> anyhow::Result<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read /proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"))
        .context("libtorch_cpu.so is not loaded")?;
    Ok(path.parent().expect("a file has a folder").to_owned())
}

/// Loads a library for the life of the process, with its symbols visible to all.
pub(super) fn open(path: &Path) -> anyhow::Result<*mut c_void> {
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
