//! What this program is: one version, which `deploy/release/bump.py` sets, and the commit that it was built of.

/// The version of the workspace, as of the wheels, the tarball, the metrics and each stream.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, which a release names as it is built (`BUILD_REVISION`). Other builds do not ask git, as each commit
/// would compile the server again.
pub(crate) const REVISION: &str = match option_env!("BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What `pba --version` says after the name.
pub(crate) fn shown() -> String {
    match option_env!("BUILD_REVISION") {
        Some(revision) => format!("{VERSION} ({revision})"),
        None => VERSION.to_owned(),
    }
}
