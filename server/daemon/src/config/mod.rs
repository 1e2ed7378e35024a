//! Configuration: flags over environment over file over defaults.
//!
//! [`Settings`] is what people write, in any of these places; [`Config`] is what the server trusts.

mod memory;
mod settings;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use pba_augment::Base;
use serde::Serialize;
use serde_json::Value;

use crate::access::authenticator::Authenticator;
use crate::access::reload::TokensFile;
use crate::access::socket_role::SocketRole;
use crate::access::tokens::Tokens;
use crate::catalog::datasets::{check_dataset_name, check_dataset_path};
use crate::config::settings::{DEFAULT_FILE, DatasetSettings};
pub(crate) use crate::config::settings::{Limits, ServeArgs, Settings, parse, read_file};
use crate::config::values::{
    DEFAULT_ADDRESS, NO_ADDRESS, absolute, address, address_or_none, check_tls, libtorch_folder,
    metrics_address, octal, socket_mode,
};
use crate::hosts::Hosts;
use crate::jobs::trainer::Trainer;
use crate::tls::files::Files;

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
    /// Whether it may be reached from other machines without tokens.
    pub(crate) insecure: bool,
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

/// Only its owner may use the socket.
const SOCKET_MODE: u32 = 0o600;
/// Longest path in a socket's address.
const SOCKET_BYTES_MAX: usize = 107;

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
                "tokens_file: {} holds no token, so no client would be let in; make one with: pba token new",
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
        anyhow::ensure!(
            settings.tokens.is_none() || !tokens.is_empty() || settings.tokens_file.is_some(),
            "tokens: there are none in [], which would let everyone in; leave the setting out for that, or make a token \
             with: pba token new"
        );
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
        check_tls(settings.tls_cert.as_deref(), settings.tls_key.as_deref(), listen)?;
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
            insecure: settings.insecure.unwrap_or(false),
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
        self.check_dataset_names()?;
        self.datasets.iter().try_for_each(|(name, dataset)| check_dataset_path(name, &dataset.path))
    }

    /// Checks that the datasets' names are valid.
    ///
    /// # Errors
    /// At the first dataset that fails.
    pub(crate) fn check_dataset_names(&self) -> anyhow::Result<()> {
        self.datasets.keys().try_for_each(|name| check_dataset_name(name))
    }

    /// Warns of datasets with nothing at their paths. Such a server serves the others: a disk may be mounted late.
    pub(crate) fn warn_of_missing_datasets(&self) {
        for (name, dataset) in &self.datasets {
            if let Err(missing) = check_dataset_path(name, &dataset.path) {
                tracing::warn!(
                    "{missing}; the others are served, and this one as soon as there is something"
                );
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::secret;

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
        let text = include_str!("../../../../deploy/pba.toml");
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
            anyhow::Ok(config.tokens.iter().map(|token| token.name.clone()).collect::<Vec<_>>())
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
