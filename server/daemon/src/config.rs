//! Configuration: flags over environment over file over defaults.
//!
//! A setting is declared once, in [`settings!`](macro@settings) below: its flag, its variable, its key in
//! `pba.toml`, its help, its default and its range follow from that. [`Settings`] is what people write,
//! in any of these places; [`Config`] is what the server trusts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, bail};
use pba_augment::Base;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::authenticator::Authenticator;
use crate::access::reload::TokensFile;
use crate::access::secret;
use crate::access::socket_role::SocketRole;
use crate::access::tokens::{Tokens, unshown};
use crate::catalog::datasets::check_dataset;
use crate::hosts::Hosts;
use crate::jobs::trainer::Trainer;
use crate::tls::files::Files;

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
    path: PathBuf,
    base: Option<String>,
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
            fn over(self, weaker: Settings) -> Settings {
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

            fn limits(&self) -> anyhow::Result<Limits> {
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

/// Half of the memory of this machine or of the process's control group, whichever is less, but 4 GiB at most:
/// more than 1,000 streams of usual batches need. Without an answer from the system, 1 GiB.
fn memory_share() -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    // What limits a container is seen at the root, from within; what limits a service, in its own group or in
    // one that holds that. Each version of control groups has its own tree and file.
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let files = |controllers: &str, root: &str, file: &str| -> Vec<String> {
        let of = |line: &str| {
            let (found, path) = line.split_once(':')?.1.split_once(":/")?;
            found.split(',').any(|controller| controller == controllers).then(|| path.to_owned())
        };
        let group = own.lines().find_map(of).unwrap_or_default();
        Path::new(&group).ancestors().map(|group| format!("{root}/{}/{file}", group.display())).collect()
    };
    let groups = [
        files("", "/sys/fs/cgroup", "memory.max"),
        files("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ];
    let groups = groups.into_iter().flatten();
    let groups: Vec<u64> = groups.filter_map(|path| number(&read(&path)?)).collect();
    let machine = read("/proc/meminfo").and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(number(total.trim().strip_suffix("kB")?)? << 10)
    });
    let bytes = groups.into_iter().chain(machine).min().unwrap_or(2 << 30);
    (bytes / 2).clamp(64 << 20, 4 << 30)
}

/// The path of a dataset for every process, whatever its working directory: a trainer finds what is packed by it.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{path:?} is not a path"))
}

/// The value of a setting, or its default.
fn within<T: PartialOrd + fmt::Display>(
    name: &str,
    value: Option<T>,
    default: T,
    range: RangeInclusive<T>,
) -> anyhow::Result<T> {
    let value = value.unwrap_or(default);
    let (min, max) = (range.start(), range.end());
    anyhow::ensure!(range.contains(&value), "{name}: {value} is out of range; allowed are {min}..={max}");
    Ok(value)
}

/// What the server runs with: its [`Settings`], checked and complete.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    /// Without one there is no TCP port, and there is a socket.
    #[serde(serialize_with = "address_or_none")]
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) socket: Option<PathBuf>,
    #[serde(serialize_with = "octal")]
    pub(crate) socket_mode: u32,
    pub(crate) socket_role: SocketRole,
    /// All of them, those of the file as well.
    pub(crate) tokens: Tokens,
    pub(crate) tokens_file: Option<PathBuf>,
    /// Those that do not stand in the file.
    #[serde(skip)]
    tokens_of_settings: Tokens,
    pub(crate) hosts: Hosts,
    pub(crate) tls_cert: Option<PathBuf>,
    /// There is one if there is a certificate.
    pub(crate) tls_key: Option<PathBuf>,
    /// May be reached from other machines: it shows numbers only.
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) data_dir: PathBuf,
    #[serde(skip)]
    pub(crate) datasets: BTreeMap<String, DatasetConfig>,
    #[serde(skip)]
    pub(crate) trainer: Option<PathBuf>,
    pub(crate) libtorch: Option<PathBuf>,
    pub(crate) save_seconds: Option<u32>,
    #[serde(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Clone, Debug)]
pub(crate) struct DatasetConfig {
    pub(crate) path: PathBuf,
    /// Base augmentation, unless it is the default for its images.
    pub(crate) base: Option<Base>,
}

const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";
/// What stands in place of an address where there is to be none.
const NO_ADDRESS: &str = "none";
/// Only its owner may use the socket.
const SOCKET_MODE: u32 = 0o600;
/// Longest path in a socket's address.
const SOCKET_BYTES_MAX: usize = 107;
/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The file that is read when none is named and it exists.
const DEFAULT_FILE: &str = "pba.toml";

impl Config {
    /// Combines flags, environment (which the flags already include), file and defaults.
    ///
    /// # Errors
    /// When the file or that of the tokens cannot be read, a key is unknown, a value is out of range, the address can be
    /// reached by other machines without a token or `insecure`, or there is neither an address nor a socket.
    pub(crate) fn resolve(args: &ServeArgs) -> anyhow::Result<Config> {
        let file = args.file().map(read_file).transpose()?.unwrap_or_default();
        let mut config = Config::combine(args, file)?;
        if let Some(file) = &config.tokens_file {
            config.tokens = config.tokens.with(Tokens::read_file(file)?)?;
            anyhow::ensure!(
                !config.tokens.is_empty(),
                "tokens_file: {} holds no token, so nobody could ask anything; make one with: pba token new",
                file.display()
            );
        }
        anyhow::ensure!(
            config.socket_role != SocketRole::Token || !config.tokens.is_empty(),
            "socket_role: {} needs tokens, and none is configured; make one with: pba token new",
            config.socket_role
        );
        Ok(config)
    }

    /// The same with the settings of a file that was read, and without a look into the file of the tokens.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub(crate) fn combine(args: &ServeArgs, file: Settings) -> anyhow::Result<Config> {
        let settings = args.settings.clone().over(file);
        let limits = settings.limits()?;
        let listen = address(settings.listen.as_deref().unwrap_or(DEFAULT_ADDRESS))?;
        let tokens = settings.tokens.as_ref().map(Tokens::read).transpose()?.unwrap_or_default();
        let has_tokens = !tokens.is_empty() || settings.tokens_file.is_some();
        match listen {
            Some(listen) => anyhow::ensure!(
                listen.ip().is_loopback() || has_tokens || settings.insecure.unwrap_or(false),
                "listen: {listen} can be reached from other machines, and no tokens are configured, so that all of them could \
                 do everything; make one with: pba token new --role admin --name NAME, and put the table that it prints \
                 into {DEFAULT_FILE}; or listen on 127.0.0.1, or pass --insecure"
            ),
            None => anyhow::ensure!(
                settings.socket.is_some(),
                "listen: {NO_ADDRESS:?} leaves no way to reach the server without a Unix socket; give it one with --socket \
                 PATH, or an address, such as {DEFAULT_ADDRESS}"
            ),
        }
        check_tls(&settings, listen)?;
        let metrics_listen = settings.metrics_listen.as_deref().map(|text| metrics_address(text, listen));
        let mut datasets = BTreeMap::new();
        for (name, DatasetSettings { path, base }) in settings.datasets {
            let base = base.map(|text| text.parse()).transpose();
            let base = base.with_context(|| format!("datasets.{name}.base"))?;
            datasets.insert(name, DatasetConfig { path: absolute(&path)?, base });
        }
        // A flag replaces a dataset of the file; two flags for one name are a mistake.
        let mut flagged = BTreeSet::new();
        for text in &args.datasets {
            let (name, path) = text
                .split_once('=')
                .with_context(|| format!("--dataset {text:?}: expected NAME=PATH, like cifar10=./cifar10"))?;
            anyhow::ensure!(flagged.insert(name), "--dataset {text:?}: dataset {name:?} is given twice");
            datasets.insert(name.to_owned(), DatasetConfig { path: absolute(path.as_ref())?, base: None });
        }
        Ok(Config {
            listen,
            socket: settings.socket,
            socket_mode: settings.socket_mode.as_deref().map_or(Ok(SOCKET_MODE), socket_mode)?,
            socket_role: settings.socket_role.unwrap_or_default(),
            tokens: tokens.clone(),
            tokens_file: settings.tokens_file,
            tokens_of_settings: tokens,
            hosts: settings.hosts.unwrap_or_default().checked()?,
            tls_cert: settings.tls_cert,
            tls_key: settings.tls_key,
            metrics_listen: metrics_listen.transpose()?,
            data_dir: settings.data_dir.unwrap_or_else(|| "./pba-data".into()),
            datasets,
            trainer: settings.trainer,
            libtorch: settings.libtorch.as_deref().map(libtorch_folder).transpose()?,
            save_seconds: settings.save_seconds,
            limits,
        })
    }

    /// The settings that are not what they are by default, as `key=value`.
    ///
    /// # Errors
    /// When the defaults are no configuration, which is a mistake in this module.
    pub(crate) fn changed(&self) -> anyhow::Result<Vec<String>> {
        let fields = |config: &Config| match serde_json::to_value(config)? {
            Value::Object(fields) => anyhow::Ok(fields),
            _ => bail!("a configuration is an object"),
        };
        let default = fields(&Config::combine(&ServeArgs::default(), Settings::default())?)?;
        let own = fields(self)?.into_iter().filter(|(key, value)| default.get(key) != Some(value));
        let mut changed: Vec<String> = own.map(|(key, value)| format!("{key}={value}")).collect();
        changed.extend(self.datasets.keys().map(|name| format!("datasets.{name}")));
        Ok(changed)
    }

    /// Where the certificate and its key lie, if the port speaks TLS.
    pub(crate) fn tls_files(&self) -> Option<Files> {
        Some(Files { cert: self.tls_cert.clone()?, key: self.tls_key.clone()? })
    }

    /// Who is let in.
    pub(crate) fn authenticator(&self) -> Authenticator {
        Authenticator::new(self.tokens.clone(), self.needs_tokens(), self.socket_role)
    }

    /// Whether clients have to send a token over TCP.
    pub(crate) fn needs_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// The file of tokens, to look after.
    pub(crate) fn watched_tokens(&self) -> Option<TokensFile> {
        let others = self.tokens_of_settings.clone();
        self.tokens_file.clone().map(|path| TokensFile { path, others })
    }

    /// Warns if tokens are sent over a network as they are.
    pub(crate) fn warn_of_tokens_in_the_clear(&self) {
        let is_clear = self.needs_tokens() && self.tls_cert.is_none();
        if let Some(listen) = self.listen.filter(|listen| is_clear && !listen.ip().is_loopback()) {
            tracing::warn!(
                "tokens for {listen} pass over the network in the clear, unless something that speaks TLS stands before \
                 this server; tls_cert and tls_key have it speak TLS itself"
            );
        }
    }

    /// Checks datasets, data directory and socket as far as possible without reading, creating or binding
    /// them.
    ///
    /// # Errors
    /// When a dataset's name is invalid or that of the built-in one, or nothing exists at its path; when
    /// the data directory is not a directory and cannot be created; or when the socket cannot be created.
    pub(crate) fn check_paths(&self) -> anyhow::Result<()> {
        let data = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        let nearest = data.ancestors().find(|folder| folder.symlink_metadata().is_ok());
        let may_write = |folder: &Path| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
        anyhow::ensure!(
            nearest.is_some_and(|nearest| nearest.is_dir() && (nearest == data || may_write(nearest))),
            "data_dir: {:?} is not a folder and cannot be created",
            self.data_dir
        );
        if let Some(socket) = &self.socket {
            let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty());
            anyhow::ensure!(
                socket.file_name().is_some()
                    && folder.is_none_or(|folder| folder.is_dir() && may_write(folder))
                    && socket.as_os_str().len() <= SOCKET_BYTES_MAX
                    && socket.metadata().map_or(true, |found| found.file_type().is_socket()),
                "socket: {socket:?} cannot be a socket's path; expected an unused name in a writable folder, \
                 of {SOCKET_BYTES_MAX} bytes at most"
            );
        }
        self.check_datasets()
    }

    /// Checks that the datasets' names are valid, and that their paths exist.
    ///
    /// # Errors
    /// At the first dataset that fails.
    pub(crate) fn check_datasets(&self) -> anyhow::Result<()> {
        self.datasets.iter().try_for_each(|(name, dataset)| check_dataset(name, &dataset.path))
    }

    /// The trainer, which need not be there.
    pub(crate) fn find_trainer(&self) -> Trainer {
        Trainer::find(self.trainer.clone(), self.libtorch.clone(), self.save_seconds)
    }

    /// Checks that the trainer, if one is set, is a program.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check_trainer(&self) -> anyhow::Result<()> {
        match self.trainer.as_deref().and_then(Trainer::fault) {
            None => Ok(()),
            Some(fault) => bail!("{fault}; expected the path of the pba-trainer program"),
        }
    }
}

/// Reads an address to listen on, or that there is to be none.
fn address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text == NO_ADDRESS {
        return Ok(None);
    }
    let address = text.parse().with_context(|| {
        format!(
            "listen: {text:?} is not an address; expected IP:PORT, such as {DEFAULT_ADDRESS}, or {NO_ADDRESS} beside a \
             socket"
        )
    });
    address.map(Some)
}

/// Checks that there is a key to a certificate, and a port for them.
fn check_tls(
    Settings { tls_cert, tls_key, .. }: &Settings,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let (given, missing) = match (tls_cert, tls_key) {
        (None, None) => return Ok(()),
        (Some(_), Some(_)) => {
            anyhow::ensure!(
                listen.is_some(),
                "tls_cert: with listen = {NO_ADDRESS:?} there is no port to speak TLS at; give it an address, such as \
                 {DEFAULT_ADDRESS}, or no certificate"
            );
            return Ok(());
        }
        (Some(cert), None) => (format!("tls_cert: {}", cert.display()), "tls_key"),
        (None, Some(key)) => (format!("tls_key: {}", key.display()), "tls_cert"),
    };
    let flag = missing.replace('_', "-");
    bail!("{given} is given without {missing}; TLS needs a certificate and its key: add --{flag} FILE")
}

/// Reads the further address for metrics.
fn metrics_address(text: &str, listen: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let address: SocketAddr = text.parse().with_context(|| {
        format!("metrics_listen: {text:?} is not an address; expected IP:PORT, such as 127.0.0.1:9090")
    })?;
    anyhow::ensure!(
        address.port() == 0 || Some(address) != listen,
        "metrics_listen: {address} is the address of listen as well; choose another port"
    );
    Ok(address)
}

fn address_or_none<S: serde::Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(NO_ADDRESS),
    }
}

/// Reads the mode of a socket, whose permission to write is that to connect.
fn socket_mode(text: &str) -> anyhow::Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.with_context(|| {
        format!(
            "socket_mode: {text:?} is not a mode; expected octal digits up to 777, as 600, or 660 for a group"
        )
    })
}

fn octal<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:o}"))
}

/// The folder with libtorch's libraries in a folder that a user names: it, or `lib` in it, or `torch/lib`.
fn libtorch_folder(named: &Path) -> anyhow::Result<PathBuf> {
    let named = std::path::absolute(named).with_context(|| format!("libtorch: {named:?} is not a folder"))?;
    // The dynamic linker takes a list of folders, with colons between them.
    anyhow::ensure!(
        !named.as_os_str().as_encoded_bytes().contains(&b':'),
        "libtorch: {} has a colon in its name, so the dynamic linker cannot look there; expected a folder without",
        named.display()
    );
    let places = [named.clone(), named.join("lib"), named.join("torch/lib")];
    places.into_iter().find(|place| place.join("libtorch_cpu.so").is_file()).with_context(|| {
        let named = named.display();
        format!("libtorch: there is no libtorch_cpu.so in {named}, nor in its lib or torch/lib; expected the lib folder of a PyTorch")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, args: ServeArgs) -> anyhow::Result<Config> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pba.toml");
        std::fs::write(&path, text).unwrap();
        Config::resolve(&ServeArgs { config: Some(path), ..args })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let args = ServeArgs {
            datasets: vec!["a=/data/a".to_owned()],
            settings: Settings { threads: Some(3), ..Settings::default() },
            ..ServeArgs::default()
        };
        let file = "threads = 2\nstreams_max = 9\n[datasets.b]\npath = \"/data/b\"\nbase = \"cutout:20\"\n";
        let config = with_file(file, args).unwrap();
        assert_eq!(
            (config.limits.threads, config.limits.streams_max, config.limits.batches_ahead),
            (3, 9, 3)
        );
        assert_eq!(config.datasets.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(config.datasets["b"].base.as_ref().unwrap().to_string(), "cutout:20");
    }

    #[test]
    fn paths_of_datasets_are_absolute() {
        let args = ServeArgs { datasets: vec!["a=data/a".to_owned()], ..ServeArgs::default() };
        let config = with_file("[datasets.b]\npath = \"b\"", args).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            ["a", "b"].map(|name| &config.datasets[name].path),
            [&here.join("data/a"), &here.join("b")]
        );
    }

    #[test]
    fn a_socket_needs_no_port_beside_it() {
        let file = "listen = \"none\"\nsocket = \"pba.sock\"";
        let config = with_file(file, ServeArgs::default()).unwrap();
        assert_eq!(config.listen, None);
        assert_eq!(serde_json::to_value(config).unwrap()["listen"], "none");
        // A flag gives it one again.
        let settings = Settings { listen: Some("127.0.0.1:0".to_owned()), ..Settings::default() };
        let config = with_file(file, ServeArgs { settings, ..ServeArgs::default() }).unwrap();
        assert_eq!(serde_json::to_value(config).unwrap()["listen"], "127.0.0.1:0");
    }

    #[test]
    fn the_sample_says_every_setting_and_its_default() {
        let text = include_str!("../../../deploy/pba.toml");
        let value =
            |file: &str| serde_json::to_value(with_file(file, ServeArgs::default()).unwrap()).unwrap();
        assert_eq!(value(text), value(""));
        for key in value("").as_object().unwrap().keys() {
            let forms = ["\n", "\n# ", "\n# [", "\n# [["].map(|before| format!("{before}{key}"));
            assert!(forms.iter().any(|form| text.contains(form)), "the sample has no {key}");
        }
    }

    #[test]
    fn what_is_not_by_default_is_listed() {
        let changed = |file| with_file(file, ServeArgs::default()).unwrap().changed().unwrap();
        assert_eq!(changed(""), [""; 0]);
        let file = "listen = \"127.0.0.1:0\"\nstreams_max = 9\n[datasets.b]\npath = \"/data/b\"";
        assert_eq!(changed(file), ["listen=\"127.0.0.1:0\"", "streams_max=9", "datasets.b"]);
    }

    #[track_caller]
    fn refuse(file: &str, args: ServeArgs, says: &str) {
        let error = format!("{:#}", with_file(file, args).unwrap_err());
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_configurations_are_refused_by_name() {
        let none = ServeArgs::default;
        refuse("thread = 2", none(), "unknown field `thread`");
        refuse("threads = 0", none(), "threads: 0 is out of range; allowed are 1..=1024");
        refuse("threads = \"two\"", none(), "threads");
        refuse("hosts = [\"https://a\"]", none(), "\"https://a\" is not the name of a host");
        refuse("socket_mode = \"rw\"", none(), "\"rw\" is not a mode");
        refuse("listen = \"8080\"", none(), "\"8080\" is not an address");
        refuse(
            "listen = \"None\"",
            none(),
            "\"None\" is not an address; expected IP:PORT, such as 127.0.0.1:8080, or none",
        );
        refuse("listen = \"0.0.0.0:8080\"", none(), "--insecure");
        refuse("listen = \"none\"", none(), "without a Unix socket; give it one with --socket PATH");
        refuse("tls_cert = \"a.pem\"", none(), "tls_cert: a.pem is given without tls_key; TLS needs");
        refuse("tls_key = \"b.pem\"", none(), "add --tls-cert FILE");
        let both = "tls_cert = \"a.pem\"\ntls_key = \"b.pem\"";
        refuse(&format!("{both}\nlisten = \"none\"\nsocket = \"s\""), none(), "no port to speak TLS at");
        assert!(with_file(both, none()).unwrap().tls_files().is_some());
        refuse("metrics_listen = \"9090\"", none(), "metrics_listen: \"9090\" is not an address");
        refuse("metrics_listen = \"none\"", none(), "expected IP:PORT, such as 127.0.0.1:9090");
        refuse("metrics_listen = \"127.0.0.1:8080\"", none(), "is the address of listen as well");
        assert!(with_file("metrics_listen = \"0.0.0.0:9090\"", none()).is_ok(), "it shows numbers only");
        refuse("[datasets.a]\npath = \"x\"\nbase = \"flop\"", none(), "datasets.a.base");
        refuse("", ServeArgs { datasets: vec!["a".to_owned()], ..none() }, "NAME=PATH");
        let twice = vec!["a=x".to_owned(), "a=y".to_owned()];
        refuse("", ServeArgs { datasets: twice, ..none() }, "given twice");
        assert!(with_file("listen = \"0.0.0.0:0\"\ninsecure = true", none()).is_ok());
        refuse("listen = \"0.0.0.0:0\"\ntokens = []", none(), "pba token new");
        refuse("socket_role = \"boss\"", none(), "\"boss\" is not a role; allowed are reader");
        refuse("socket_role = \"token\"", none(), "socket_role: token needs tokens");
        refuse("tokens_file = \"/no/such\"", none(), "tokens_file: cannot read /no/such");
    }

    #[test]
    fn tokens_open_an_address_and_come_from_two_files() {
        let table = |name: &str, digit: &str| {
            format!("[[tokens]]\nname = \"{name}\"\nrole = \"reader\"\nsha256 = \"{}\"\n", digit.repeat(64))
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let file = format!("listen = \"0.0.0.0:0\"\ntokens_file = {path:?}\n");
        let names = |more: &str| {
            let config = with_file(&(file.clone() + more), ServeArgs::default())?;
            anyhow::Ok(config.tokens.names().map(str::to_owned).collect::<Vec<_>>())
        };
        std::fs::write(&path, table("a", "a")).unwrap();
        assert_eq!(names("").unwrap(), ["a"]);
        assert_eq!(names(&table("b", "b")).unwrap(), ["b", "a"]);
        assert!(names(&table("b", "a")).unwrap_err().to_string().contains("have the same sha256"));
        std::fs::write(&path, "tokens = []").unwrap();
        assert!(names("").unwrap_err().to_string().contains("holds no token"));
        assert_eq!(names(&table("b", "b")).unwrap(), ["b"]);
    }

    #[test]
    fn errors_of_a_file_with_tokens_show_none_of_its_lines() {
        let pasted = secret::generate().unwrap();
        for file in [
            format!("token = \"{pasted}\""),
            format!("[[tokens]]\nsha256 = \"{pasted}"),
            format!("streams_max = \"{pasted}\""),
            format!("tokens = \"{pasted}\""),
        ] {
            let error = format!("{:#}", with_file(&file, ServeArgs::default()).unwrap_err());
            assert!(!error.contains(&pasted[4..30]), "{error}");
        }
    }
}
