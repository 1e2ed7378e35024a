//! The settings, each declared once, in [`settings!`](macro@settings) below: its flag, its variable, its key in `pba.toml`,
//! its help, its default and its range follow from that.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::access::secret;
use crate::access::socket_role::SocketRole;
use crate::access::tokens::unshown;
use crate::config::memory::memory_share;
use crate::config::values::within;
use crate::hosts::Hosts;

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The file that is read when none is named and it exists.
pub(super) const DEFAULT_FILE: &str = "pba.toml";

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// A dataset to serve, as NAME=PATH; may be repeated
    #[arg(long = "dataset", value_name = "NAME=PATH")]
    pub(crate) datasets: Vec<String>,
    /// Configuration file [default: pba.toml, if it exists]
    #[arg(long, env = "PBA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the resulting configuration and exit; packs nothing and binds no address, so a server may be
    /// running
    #[arg(long)]
    pub(crate) check: bool,
}

impl ServeArgs {
    /// The configuration file that is read: the one that is named, or the usual one if it exists.
    pub(crate) fn file(&self) -> Option<&Path> {
        let usual = Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists());
        self.config.as_deref().or(usual)
    }
}

/// A dataset in `pba.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with a path, as { path = \"/data/cifar10\" }")]
pub(crate) struct DatasetSettings {
    pub(super) path: PathBuf,
    pub(super) base: Option<String>,
}

/// Declares the settings. Those with a default and a range become fields of [`Limits`]; the others are
/// resolved in [`Config::resolve`].
macro_rules! settings {
    (
        $($(#[doc = $help:literal])+ $name:ident: $type:ty = ($($arg:tt)+);)+
        limits:
        $($(#[doc = $bound_help:literal])+ $bound:ident: $number:ty = $default:expr, $range:expr, $env:literal, $unit:literal;)+
    ) => {
        /// The settings of a server, from flags and variables or from `pba.toml`.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Settings {
            $($(#[doc = $help])+ #[arg(long, $($arg)+)] pub(crate) $name: Option<$type>,)+
            $(
                #[arg(long, env = $env, value_name = $unit, help_heading = "Limits")]
                #[arg(help = format!("{} [default: {}]", concat!($($bound_help),+).trim_start(), $default))]
                pub(crate) $bound: Option<$number>,
            )+
            #[arg(skip)]
            pub(crate) datasets: BTreeMap<String, DatasetSettings>,
            /// As it stands there: its errors must not show what may be a token.
            #[arg(skip)]
            pub(crate) tokens: Option<toml::Value>,
        }

        impl Settings {
            /// These settings; those that are not set come from `weaker`.
            pub(super) fn over(self, weaker: Settings) -> Settings {
                let mut datasets = weaker.datasets;
                datasets.extend(self.datasets);
                Settings {
                    $($name: self.$name.or(weaker.$name),)+
                    $($bound: self.$bound.or(weaker.$bound),)+
                    datasets,
                    tokens: self.tokens.or(weaker.tokens),
                }
            }

            /// The names of all settings but the datasets.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name),)+ $(stringify!($bound),)+ "tokens"];

            /// The names of those that are set.
            pub(crate) fn set(&self) -> Vec<&'static str> {
                let mut set = Vec::new();
                $(if self.$name.is_some() { set.push(stringify!($name)); })+
                $(if self.$bound.is_some() { set.push(stringify!($bound)); })+
                if self.tokens.is_some() {
                    set.push("tokens");
                }
                set
            }

            pub(super) fn limits(&self) -> anyhow::Result<Limits> {
                Ok(Limits { $($bound: within(stringify!($bound), self.$bound, $default, $range)?,)+ })
            }
        }

        /// The bounds of a running server.
        #[derive(Clone, Debug, Serialize)]
        pub(crate) struct Limits {
            $($(#[doc = $bound_help])+ pub(crate) $bound: $number,)+
        }
    };
}

settings! {
    /// Address to listen on; port 0 picks a free one, and none takes no port, for the Unix socket only
    /// [default: 127.0.0.1:8080]
    listen: String = (env = "PBA_LISTEN", value_name = "ADDRESS");
    /// Unix socket to also listen on, for clients on this machine
    socket: PathBuf = (env = "PBA_SOCKET", value_name = "PATH");
    /// Mode of the Unix socket in octal digits: who may use it [default: 600, its owner only]
    socket_mode: String = (env = "PBA_SOCKET_MODE", value_name = "MODE");
    /// What a client on the Unix socket may do without a token: as much as a reader, a researcher or an admin; or
    /// nothing, as token says [default: admin]
    socket_role: SocketRole = (env = "PBA_SOCKET_ROLE", value_name = "ROLE");
    /// File with further [[tokens]] tables, which is read again when it changes, so that tokens are added and revoked
    /// without a restart
    tokens_file: PathBuf = (env = "PBA_TOKENS_FILE", value_name = "FILE");
    /// Further names of this server, as behind a proxy, with commas between them: pba.example.org, or
    /// .example.org for all that end so. Requests for other hosts and from other sites' pages are refused
    hosts: Hosts = (env = "PBA_HOSTS", value_name = "NAMES");
    /// Certificate of this server in PEM, then those that it is signed by; with it and its key the port speaks TLS, and a
    /// certificate that replaces it is taken over at once
    tls_cert: PathBuf = (env = "PBA_TLS_CERT", value_name = "FILE");
    /// Key of the certificate in PEM: PKCS#8, PKCS#1 or SEC1, without a passphrase
    tls_key: PathBuf = (env = "PBA_TLS_KEY", value_name = "FILE");
    /// Further address, which answers /metrics, /livez and /readyz only: in plain HTTP, to all who can reach it
    metrics_listen: String = (env = "PBA_METRICS_LISTEN", value_name = "ADDRESS");
    /// Directory for schedules, jobs and packed datasets [default: ./pba-data]
    data_dir: PathBuf = (env = "PBA_DATA_DIR", value_name = "DIR");
    /// The trainer, which runs searches, evaluations and comparisons [default: pba-trainer next to this program]
    trainer: PathBuf = (env = "PBA_TRAINER", value_name = "PATH");
    /// Folder of libtorch's libraries for the trainer, before those that it was built with: one with CUDA, say
    libtorch: PathBuf = (env = "PBA_LIBTORCH", value_name = "FOLDER");
    /// Seconds from one save of a job's models to the next, at least; 0 saves after every epoch [default: 30, or
    /// 100 times what a save takes, if that is less]
    save_seconds: u32 = (env = "PBA_SAVE_SECONDS", value_name = "SECONDS");
    /// Allow an address that other machines can reach, without tokens
    insecure: bool = (
        env = "PBA_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new()
    );

    limits:
    /// Worker threads; by default one per core
    threads: usize = available_parallelism().map_or(1, usize::from), 1..=1024, "PBA_THREADS", "N";
    /// Most streams at a time; further ones are refused with 429
    streams_max: usize = 256, 1..=65_536, "PBA_STREAMS_MAX", "N";
    /// Most streams of one client at a time: of one address, of one IPv6 /64 network, or of one process on the
    /// Unix socket; further ones are refused with 429
    streams_per_client_max: usize = 128, 1..=65_536, "PBA_STREAMS_PER_CLIENT_MAX", "N";
    /// Batches that each stream prepares in advance
    batches_ahead: usize = 3, 1..=64, "PBA_BATCHES_AHEAD", "N";
    /// Memory for all that is in flight: batches, shared memory, answers, bodies; by default half of what this
    /// process may use, 4 GiB at most: the other half is for the datasets' pages, the cache and trainers
    memory_bytes_max: u64 = memory_share(), 16 << 20..=1 << 44, "PBA_MEMORY_BYTES_MAX", "BYTES";
    /// Largest batch in bytes
    batch_bytes_max: u64 = 268_435_456, 1 << 10..=1 << 40, "PBA_BATCH_BYTES_MAX", "BYTES";
    /// Largest request body in bytes
    body_bytes_max: usize = 16_777_216, 1..=1 << 32, "PBA_BODY_BYTES_MAX", "BYTES";
    /// Size of the cache of decoded images, for datasets whose images differ in size; 0 disables it
    decoded_cache_bytes: usize = 1_073_741_824, 0..=1 << 44, "PBA_DECODED_CACHE_BYTES", "BYTES";
    /// Most shared memory of all streams on the Unix socket together; 0 disables it
    shared_memory_bytes_max: u64 = 1_073_741_824, 0..=1 << 40, "PBA_SHARED_MEMORY_BYTES_MAX", "BYTES";
    /// Bytes of packed datasets that are read again in a second and compared with their checksums, so that damage is
    /// found: all of CIFAR-10 in six seconds, 150 GB in 80 minutes, for 1 to 2 % of a core; 0 disables it
    scrub_bytes_per_second: u64 = 33_554_432, 0..=1 << 40, "PBA_SCRUB_BYTES_PER_SECOND", "BYTES";
    /// Time from SIGTERM until new streams are refused; /readyz says at once that they are about to be, and load
    /// balancers need as long to notice. Ctrl-C does not wait
    drain_delay_seconds: u64 = 5, 0..=86_400, "PBA_DRAIN_DELAY_SECONDS", "SECONDS";
    /// Time that running streams get to finish after that
    drain_seconds: u64 = 20, 0..=86_400, "PBA_DRAIN_SECONDS", "SECONDS";
    /// Most connections at a time, of which one client may have three quarters; further ones are refused with 503
    connections_max: usize = 4096, 1..=1_000_000, "PBA_CONNECTIONS_MAX", "N";
    /// Least bytes of a request's body that have to come in a second; slower ones are refused with 408
    body_bytes_per_second_min: u64 = 1024, 0..=1 << 30, "PBA_BODY_BYTES_PER_SECOND_MIN", "BYTES";
    /// Largest schedule that can be added, in bytes as it is stored
    schedule_bytes_max: usize = 1_048_576, 1..=1 << 30, "PBA_SCHEDULE_BYTES_MAX", "BYTES";
    /// Most bytes of all schedules that were added together
    schedules_bytes_max: usize = 67_108_864, 1..=1 << 40, "PBA_SCHEDULES_BYTES_MAX", "BYTES";
    /// Most schedules that can be added; those that searches learn are kept in any case
    schedules_max: usize = 1024, 1..=65_536, "PBA_SCHEDULES_MAX", "N";
    /// Most searches, evaluations and comparisons that are kept, of each kind; further ones are refused with 429 until
    /// some are removed
    jobs_max: usize = 1024, 1..=65_536, "PBA_JOBS_MAX", "N";
    /// Time that a client may take for a batch, pauses before it included, before its stream is cut
    stall_seconds: u64 = 600, 1..=86_400, "PBA_STALL_SECONDS", "SECONDS";
}

/// The settings in a file.
///
/// # Errors
/// When it cannot be read, is too long, or a key or a value is wrong.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let shown = path.display();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {shown}"))?;
    anyhow::ensure!(text.len() as u64 <= FILE_BYTES_MAX, "{shown} is longer than {FILE_BYTES_MAX} bytes");
    parse(&text).with_context(|| format!("{shown} is not a valid configuration"))
}

/// The settings in the text of a file.
pub(crate) fn parse(text: &str) -> anyhow::Result<Settings> {
    toml::from_str(text).map_err(|error| match has_tokens(text) {
        // The line that the error shows may hold one.
        true => unshown(text, &error),
        false => error.into(),
    })
}

/// Whether a text may hold tokens, or what was meant to be one.
fn has_tokens(text: &str) -> bool {
    ["token", "sha256", secret::PREFIX].iter().any(|word| text.contains(word))
}
