//! `GET /v1/streams`: the streams that are running, and who waits for whom in each.

use pba_types::SplitName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `GET /v1/streams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamList {
    /// Every running stream, in the order in which they began.
    pub streams: Vec<Stream>,
}

/// A running stream. What is recent is an average over the last ten seconds or so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stream {
    /// Its number among all streams of this server since its start.
    pub id: u64,
    /// The id of its request (`X-Request-Id`), which its client may have chosen, and for several requests.
    pub request_id: String,
    /// Its client: an address with a port, or a user and a process on the Unix socket.
    pub client: String,
    /// Name of the token that it was requested with; null without tokens.
    pub token: Option<String>,
    /// What the client calls itself (`User-Agent`); null if it does not say.
    pub user_agent: Option<String>,
    /// How its batches get to the client.
    pub transport: Transport,
    /// Name of the dataset.
    pub dataset: String,
    /// Split of the dataset.
    #[schema(value_type = String)]
    pub split: SplitName,
    /// Name of the schedule, or `none` or `identity`; the digest of a policy that the request has itself.
    pub schedule: String,
    /// Its epoch, 0-based.
    pub epoch: u32,
    /// Epochs of the whole training run; null where the policy does not depend on it.
    pub epochs: Option<u32>,
    /// Its shard of the epoch, as i/n.
    pub shard: String,
    /// Images per batch.
    pub batch_size: u32,
    /// Batches that it has in all.
    pub batches: u64,
    /// Batches handed over so far.
    pub batches_sent: u64,
    /// Images that it has in all.
    pub rows: u64,
    /// Images handed over so far.
    pub rows_sent: u64,
    /// Bytes handed over so far.
    pub bytes_sent: u64,
    /// Seconds since it began.
    pub seconds: f64,
    /// Recent rate.
    pub images_per_second: f64,
    /// Recent share of the time in which its client waited for the server, 0 to 1.
    pub client_wait_ratio: f64,
    /// Recent share of the time in which the server waited for its client with finished batches, 0 to 1: that is
    /// backpressure.
    pub backpressure_ratio: f64,
    /// Seconds that its client has waited for the server since it began.
    pub client_wait_seconds: f64,
    /// Seconds that the server has waited for its client with finished batches since it began.
    pub backpressure_seconds: f64,
    /// Who waits for the other most of the recent time.
    pub waits: Waits,
}

pba_types::named! {
    /// Who waits for the other.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Waits {
        /// The client, for batches: the server is too slow for it.
        Client = "client",
        /// The server, with finished batches: the client is too slow for it.
        Server = "server",
        /// Neither, for more than one twentieth of the time.
        Neither = "neither",
    }
}

pba_types::named! {
    /// How batches get to a client.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "kebab-case")]
    pub enum Transport {
        /// Over TCP.
        Tcp = "tcp",
        /// Over TCP, encrypted.
        Tls = "tls",
        /// Through the Unix socket.
        Unix = "unix",
        /// Through memory that the server shares with its client.
        SharedMemory = "shared-memory",
    }
}
