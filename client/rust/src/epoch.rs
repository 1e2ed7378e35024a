//! A stream of one epoch.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pba_wire::{EpochRequest, Query, checksum, stream};

use crate::address::segment;
use crate::decoding::{Count, Decoding, announced, columns, text};
use crate::error::ClientError;
use crate::messages::Messages;
use crate::recipes::Recipes;
use crate::replica::{Body, check_header};
use crate::replicas::{ImportWait, Replicas, pause};

/// What is known of a stream so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes received.
    pub bytes: u64,
    /// How often the stream was cut and resumed.
    pub resumes: u32,
    /// Whether batches come, or last came, through shared memory.
    pub shares_memory: bool,
    /// Time until the stream began, and in [`EpochStream::next`]: the client waited for the server and the network.
    pub waited_for_server: Duration,
    /// Time between calls of [`EpochStream::next`]: the server waited for the client.
    pub waited_for_client: Duration,
}

/// Batches of one epoch, in order, each exactly once.
pub struct EpochStream {
    replicas: Replicas,
    dataset: String,
    epoch: u32,
    request: EpochRequest,
    replica: usize,
    /// That of a replica whose data is known to be the stream's.
    connection: Option<Connection>,
    import: ImportWait,
    schema: SchemaRef,
    expected: Count,
    received: Count,
    stats: Stats,
    since: Instant,
}

struct Connection {
    body: Body,
    /// Whether the checksums of its messages are checked.
    checks: bool,
    decoding: Decoding,
}

impl EpochStream {
    pub(crate) async fn open(
        replicas: Replicas,
        recipes: &Recipes,
        dataset: String,
        epoch: u32,
        request: EpochRequest,
    ) -> Result<EpochStream, ClientError> {
        let start = Instant::now();
        let mut stream = EpochStream {
            replicas: replicas.clone(),
            dataset,
            epoch,
            request,
            replica: 0,
            connection: None,
            import: ImportWait::default(),
            schema: SchemaRef::new(arrow_schema::Schema::empty()),
            expected: Count::default(),
            received: Count::default(),
            stats: Stats::default(),
            since: start,
        };
        let opened = replicas.first(true, async |replica| {
            stream.replica = replica;
            let (connection, schema, expected) = stream.connect().await?;
            for (key, first) in recipes.first(&stream.dataset, &stream.request, &schema)? {
                stream.check(&schema, key, first)?;
            }
            (stream.connection, stream.schema, stream.expected) = (Some(connection), schema, expected);
            Ok(())
        });
        opened.await?;
        stream.since = Instant::now();
        stream.stats.waited_for_server = stream.since - start;
        Ok(stream)
    }

    /// The digest of everything that pixels and order depend on, in all epochs of a training run. One that
    /// goes on in another process keeps it, and compares: with another digest, it would go on with other
    /// pixels.
    pub fn recipe(&self) -> &str {
        text(&self.schema, stream::RECIPE)
    }

    /// Schema of the stream, with the server's metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Total batches of the answer.
    pub fn batches(&self) -> u64 {
        self.expected.batches
    }

    /// Total rows of the answer.
    pub fn rows(&self) -> u64 {
        self.expected.rows
    }

    /// How the stream went so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The next batch; none when the epoch is complete. May be dropped while it waits, and called
    /// again; retries and pauses then begin anew.
    ///
    /// # Errors
    /// When the stream was cut and could not be resumed, or resumed with other data. The batches so far
    /// are correct either way.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        let start = Instant::now();
        self.stats.waited_for_client += start - self.since;
        self.since = start;
        let batch = self.next_batch().await;
        if batch.is_err() {
            // Its further data cannot be trusted, not even by a later call.
            self.connection = None;
        }
        self.since = Instant::now();
        self.stats.waited_for_server += self.since - start;
        batch
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        if self.received.batches == self.expected.batches {
            return self.finish().await.map(|()| None);
        }
        let replicas = self.replicas.count();
        let attempts_max = self.replicas.retries.saturating_mul(replicas);
        let (mut attempts, mut importing) = (0, None);
        // Of the last attempt at each replica.
        let mut failures = VecDeque::new();
        loop {
            let failure = match self.try_next().await {
                Ok(batch) => return Ok(Some(batch)),
                Err(error) if error.is_passing() || error.is_busy() || error.is_of_replica() => error,
                Err(error) => return Err(error),
            };
            self.connection = None;
            attempts += 1;
            let is_importing = matches!(failure, ClientError::Importing { .. });
            if let ClientError::Importing { problem, retry_after } = &failure {
                importing.get_or_insert((attempts + replicas, problem.clone(), *retry_after));
            }
            failures.push_back((self.replicas.at(self.replica).address.to_string(), failure));
            if failures.len() > replicas as usize {
                failures.pop_front();
            }
            if failures.iter().filter(|(_, failure)| failure.is_of_replica()).count() == replicas as usize {
                return Err(ClientError::of_all(failures.into()));
            }
            if importing.is_none() && attempts > attempts_max {
                return Err(ClientError::Cut {
                    received: self.received.batches,
                    expected: self.expected.batches,
                    attempts: attempts_max,
                    reason: ClientError::told(failures.make_contiguous()),
                });
            }
            if !is_importing {
                self.stats.resumes += 1;
            }
            self.replica += 1;
            // Next comes the one that is importing: all others were tried since.
            if let Some((_, problem, retry_after)) = importing.take_if(|(next, ..)| *next == attempts + 1) {
                // An import ends, so that the round does not count.
                attempts -= replicas;
                self.import.pause(&problem, retry_after).await;
            } else if importing.is_none() && attempts.is_multiple_of(replicas) && attempts > replicas {
                // Each replica is tried once without a pause, and so is a single one that cut a stream.
                tokio::time::sleep(pause(attempts / replicas - 2)).await;
            }
        }
    }

    /// Reads the end of the stream. A cut after the last batch loses nothing, but an extra batch is an
    /// error.
    async fn finish(&mut self) -> Result<(), ClientError> {
        let is_over = self.connection.is_none() || !matches!(self.read().await, Ok(Some(_)));
        self.connection = None;
        if is_over {
            return Ok(());
        }
        let batches = self.expected.batches;
        Err(ClientError::Stream(format!("it has more than the {batches} batches announced")))
    }

    /// The next batch, of the rows that are still expected.
    async fn try_next(&mut self) -> Result<RecordBatch, ClientError> {
        if self.connection.is_none() {
            let (connection, schema, _) = self.connect().await?;
            self.check_unchanged(&schema)?;
            self.connection = Some(connection);
        }
        let Count { batches, rows } = self.received;
        let Some(batch) = self.read().await? else {
            return Err(ClientError::Stream(format!("it ended after {batches} batches")));
        };
        let received = Count { batches: batches + 1, rows: rows + batch.num_rows() as u64 };
        let is_last = received.batches == self.expected.batches;
        if received.rows > self.expected.rows || is_last && received.rows < self.expected.rows {
            return Err(ClientError::Stream("it has other rows than announced".to_owned()));
        }
        self.received = received;
        Ok(batch)
    }

    /// Path and query of the missing batches.
    fn target(&self) -> String {
        let mut request = self.request.clone();
        request.start += self.received.batches * request.step;
        let (dataset, epoch, query) = (segment(&self.dataset), self.epoch, request.to_query());
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/v1/datasets/{dataset}/epochs/{epoch}/batches{mark}{query}")
    }

    /// Requests the missing batches from the current replica, and reads the schema.
    async fn connect(&mut self) -> Result<(Connection, SchemaRef, Count), ClientError> {
        let replica = self.replicas.at(self.replica);
        let body = replica.stream(&self.target()).await?;
        self.stats.shares_memory = !matches!(body, Body::Http(_));
        let checks = replica.checks;
        let messages = (!self.stats.shares_memory).then(|| Messages::new(checks));
        let mut connection = Connection { body, checks, decoding: Decoding::new(messages) };
        let schema = loop {
            if !connection.advance(replica.stall, &mut self.stats.bytes).await? {
                return Err(ClientError::Stream("it does not start with a schema".to_owned()));
            }
            if let Some(schema) = connection.decoding.schema() {
                break schema;
            }
        };
        let announced = announced(&schema).map_err(|reason| ClientError::Stream(replica.hide(&reason)))?;
        // What was changed on its way says nothing of the server.
        self.check_request(&connection)?;
        self.check(&schema, stream::EPOCH, self.epoch)?;
        self.check(&schema, stream::SEED, self.request.seed)?;
        Ok((connection, schema, announced))
    }

    /// The next batch of the connection; none at its end.
    async fn read(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        let stall = self.replicas.at(self.replica).stall;
        let connection = self.connection.as_mut().expect("a connection was made");
        loop {
            let batch = connection.decoding.batch();
            if batch.is_some() || !connection.advance(stall, &mut self.stats.bytes).await? {
                return Ok(batch);
            }
        }
    }

    /// The replica that resumes the stream must have the same data, and send the missing part.
    fn check_unchanged(&self, schema: &SchemaRef) -> Result<(), ClientError> {
        for key in [stream::DATASET, stream::SCHEDULE] {
            self.check(schema, key, text(&self.schema, key))?;
        }
        self.check(schema, stream::BATCHES, self.expected.batches - self.received.batches)?;
        self.check(schema, stream::ROWS, self.expected.rows - self.received.rows)?;
        if schema.fields() != self.schema.fields() {
            return Err(self.changed("schema", &columns(schema), columns(&self.schema)));
        }
        self.check(schema, stream::RECIPE, self.recipe())
    }

    /// The server must answer what was asked, and nothing else that a proxy or a broken network made of it.
    fn check_request(&self, connection: &Connection) -> Result<(), ClientError> {
        let asked = checksum::of_request("GET", &self.target());
        let replica = self.replicas.at(self.replica);
        let says = |header, expected| {
            let another = "the answer is to another request";
            check_header(header, connection.body.header(header), expected, another).map_err(|reason| {
                ClientError::Stream(format!("{}: {}", replica.address, replica.hide(&reason)))
            })
        };
        says(checksum::REQUEST_HEADER, asked)?;
        let Some(schema) = connection.decoding.schema_message().filter(|_| connection.checks) else {
            return Ok(());
        };
        let schema = checksum::of_schema(schema, asked);
        says(checksum::SCHEMA_HEADER, schema.map_err(|error| ClientError::Stream(error.to_string()))?)
    }

    fn check(&self, schema: &SchemaRef, key: &str, expected: impl ToString) -> Result<(), ClientError> {
        let (found, expected) = (text(schema, key), expected.to_string());
        if found == expected { Ok(()) } else { Err(self.changed(key, found, expected)) }
    }

    fn changed(&self, key: &str, found: &str, expected: String) -> ClientError {
        let replica = self.replicas.at(self.replica);
        let (url, found) = (replica.address.to_string(), replica.hide(found));
        ClientError::Changed { url, key: key.to_owned(), found, expected }
    }
}

impl Connection {
    /// Decodes up to the end of the next batch or of the received bytes, receiving some first if there are
    /// none; false at the end of the answer.
    async fn advance(&mut self, stall: Duration, received: &mut u64) -> Result<bool, ClientError> {
        if self.decoding.is_empty() {
            // TCP's own limit ends it first, and says the same.
            let next = tokio::time::timeout(stall, self.body.next()).await;
            let next = next.unwrap_or_else(|_| Err(ClientError::Stream(format!("no data for {stall:?}"))));
            let Some(bytes) = next? else { return Ok(false) };
            *received += bytes.len() as u64;
            self.decoding.take(bytes);
        }
        self.decoding.advance()?;
        Ok(true)
    }
}
